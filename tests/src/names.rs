//! A server of names (DNS, RFC 1035) whose answers a test decides, and the way to have a box ask it.

use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

/// Addresses of a name: those of one answer after the other, again and again.
type Answers = HashMap<String, Vec<Vec<IpAddr>>>;

/// A running server of names, on an address of its own.
pub struct Names {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answers: Answers,
    /// How often each name was asked for its addresses of IPv4.
    asked: HashMap<String, usize>,
    /// Names for which there is no answer at all.
    silent: Vec<String>,
    ended: bool,
}

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

impl Names {
    /// # Panics
    /// Without the rights to use port 53.
    pub fn start() -> Names {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + 1;
        // Another one for each test of each process.
        let process = std::process::id();
        let address = format!("127.{}.{}.{}:53", 100 + process % 100, process / 100 % 250, number);
        let socket = UdpSocket::bind(&address).expect("port 53, which needs root");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        let (address, state) = (socket.local_addr().expect("a bound socket"), Arc::<Mutex<State>>::default());
        let shared = state.clone();
        thread::spawn(move || {
            let mut packet = [0; 512];
            while !lock(&shared).ended {
                let Ok((length, client)) = socket.recv_from(&mut packet) else { continue };
                if let Some(answer) = answer(&packet[..length], &mut lock(&shared)) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Names { address, state }
    }

    /// From now on `name` has these addresses.
    pub fn set(&self, name: &str, addresses: &[&str]) {
        self.alternate(name, &[addresses]);
    }

    /// From now on each answer to `name` is another one of these.
    pub fn alternate(&self, name: &str, answers: &[&[&str]]) {
        let parse = |address: &&str| address.parse().expect("an address");
        let answers = answers.iter().map(|addresses| addresses.iter().map(parse).collect()).collect();
        lock(&self.state).answers.insert(name.into(), answers);
    }

    /// From now on nobody who asks for `name` is answered.
    pub fn silence(&self, name: &str) {
        lock(&self.state).silent.push(name.into());
    }

    /// How often `name` was looked up.
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.state).asked.get(name).copied().unwrap_or_default()
    }

    /// What starts a server for which this is the server of names: see [`crate::server::Launch::through`]. It needs root.
    ///
    /// # Panics
    /// If `directory` cannot be written to.
    pub fn wrapper(&self, directory: &Path) -> Vec<String> {
        let file = directory.join("resolv.conf");
        fs::write(&file, format!("nameserver {}\noptions timeout:5 attempts:1\n", self.address.ip()))
            .expect("a new file");
        // Where that is a link, what it leads to is hidden.
        let script = "mount --bind \"$0\" \"$(readlink -f /etc/resolv.conf)\" && exec \"$@\"";
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
        words.map(str::to_owned).into_iter().chain([file.display().to_string()]).collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        lock(&self.state).ended = true;
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a question of one name.
fn answer(packet: &[u8], state: &mut State) -> Option<Vec<u8>> {
    let mut name = String::new();
    let mut at = 12;
    loop {
        let length = usize::from(*packet.get(at)?);
        let label = packet.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(std::str::from_utf8(label).ok()?);
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    let question = packet.get(12..at + 4)?;
    if state.silent.contains(&name) {
        return None;
    }
    // Both kinds of one look-up are of the same turn.
    let turn = state.asked.get(&name).copied().unwrap_or_default();
    let addresses = state.answers.get(&name).map(|answers| answers[turn % answers.len()].clone());
    let known = addresses.is_some();
    let records: Vec<Vec<u8>> = addresses
        .into_iter()
        .flatten()
        .filter_map(|address| match (kind, address) {
            (TYPE_A, IpAddr::V4(address)) => Some(address.octets().to_vec()),
            (TYPE_AAAA, IpAddr::V6(address)) => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    if kind == TYPE_AAAA {
        *state.asked.entry(name).or_default() += 1;
    }
    let mut answer = packet[..2].to_vec();
    // A response, recursion available; no error, or no such name.
    answer.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1]);
    answer.extend(u16::try_from(records.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for record in records {
        // The name of the question, its type, class IN, no time to live.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 0]);
        answer.extend(u16::try_from(record.len()).ok()?.to_be_bytes());
        answer.extend(record);
    }
    Some(answer)
}
