//! Generated enemies: modules and components by wasm-smith, commands and handlers of requests among them, settings files and byte streams of both
//! protocols to both ports by arbitrary, all through one running box, beside the victim of [`wasmbox_tests::attack`]. Each must get a whole answer or a code that is not `internal`, what
//! comes over a connection must be answers and frames as the standards say, generated code must compute the same in both tiers, and in the end the memory is back where it was.
//!
//! `make enemies` runs them for two minutes; `ENEMIES_SECONDS` says how long, `ENEMIES_SEED` makes a run again. Each enemy is made from a number of its
//! own, which is shown if it finds something. What was found is kept in `found.txt` and tried first.

mod http1;
mod http2;
mod modules;
mod settings;
mod tiers;
mod wrapper;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arbitrary::Unstructured;
use wasmbox_tests::{Attack, Request, WasmBox, client::Broken, eventually, guest};

/// Enemies at the same time.
const CLIENTS: usize = 3;
/// How much more may be resident in the end: compiled code that is kept, the allocator's free memory.
const SLACK: u64 = 96 << 20;
/// Enemies before the memory is looked at first: each kind has been there some times.
const FIRST: u64 = 40;

/// One kind of enemy: acts on the box, from bytes.
type Kind = fn(&WasmBox, &str, &mut Unstructured) -> arbitrary::Result<()>;

const KINDS: [(&str, Kind); 10] = [
    ("module", modules::core),
    ("component", modules::component),
    ("command-component", modules::command_component),
    ("http-component", modules::http_component),
    ("tiers", tiers::act),
    ("settings", settings::act),
    ("http1", |server, _, bytes| http1::act(server.address(), http1::FUNCTIONS, bytes)),
    ("http2", |server, _, bytes| http2::act(server.address(), http2::FUNCTIONS, bytes)),
    ("admin-http1", |server, _, bytes| http1::act(server.admin_address(), http1::ADMIN, bytes)),
    ("admin-http2", |server, _, bytes| http2::act(server.admin_address(), http2::ADMIN, bytes)),
];

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators): the bytes from which an enemy is made.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed;
    let words = (0..size.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.take(size).collect()
}

fn enemy(server: &WasmBox, client: usize, seed: u64) {
    let (kind, act) = KINDS[(seed % KINDS.len() as u64) as usize];
    let bytes = bytes(seed, 16 << 10);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // Too few bytes for this one: that is no finding.
        let _ = act(server, &format!("enemy{client}"), &mut Unstructured::new(&bytes));
    }));
    if let Err(finding) = outcome {
        eprintln!("found by the enemy {seed} ({kind}): keep the number in tests/enemies/found.txt");
        resume_unwind(finding);
    }
}

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

fn main() {
    let seconds = Duration::from_secs(number("ENEMIES_SECONDS").unwrap_or(120));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let seed = number("ENEMIES_SEED").unwrap_or(clock.as_secs());
    eprintln!("ENEMIES_SEED={seed}, {seconds:?}");
    let attack = Attack::within(768)
        .function("echo.wat", guest::echo())
        .function("arguments.wat", guest::arguments())
        .function("flood.wat", guest::flood(4))
        .flag("--log-level", "warn,wasmbox::serve=info")
        .flag("--module-memory", "64Mi")
        .descriptors(1000)
        .log_bytes((seconds.as_secs() + 60) << 20);
    attack.run(|server| {
        modules::assert_handler_answers(server);
        tiers::assert_both_tiers(server);
        for line in include_str!("../found.txt").lines().filter(|line| !line.starts_with('#')) {
            let found = line.split(' ').next().and_then(|seed| seed.parse().ok());
            enemy(server, 0, found.unwrap_or_else(|| panic!("found.txt: {line:?} does not begin with a number")));
        }
        for index in 0..FIRST {
            enemy(server, 0, seed.wrapping_add(index));
        }
        let before = server.process().resident_bytes();
        let next = AtomicU64::new(FIRST);
        let started = Instant::now();
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let next = &next;
                scope.spawn(move || {
                    while started.elapsed() < seconds {
                        enemy(server, client, seed.wrapping_add(next.fetch_add(1, Ordering::Relaxed)));
                    }
                });
            }
        });
        server.wait_until_idle();
        let enemies = next.load(Ordering::Relaxed);
        let resident = || server.process().resident_bytes();
        let compared = tiers::COMPARED.load(Ordering::Relaxed);
        eprintln!(
            "{enemies} enemies, {compared} in both tiers; {} MiB resident before, {} after",
            before >> 20,
            resident() >> 20
        );
        eventually("the memory is back where it was", || (resident() < before + SLACK).then_some(()));
    });
}

/// Calls a function that an enemy made: its answer is whole and not the box's fault, or broken off because it had begun.
fn call(server: &WasmBox, path: &str, body: &[u8]) {
    let request = Request::post(path).header("Memory-Request", "2Mi").header("Invocation-Timeout", "300");
    match server.try_call(request, body.to_vec()) {
        Ok(answer) => {
            let code = answer.headers.get("wasmbox-error").map(|code| code.to_str().expect("a code").to_owned());
            assert_ne!(code.as_deref(), Some("internal"), "{answer:?}");
            if let Some(code) = code {
                answer.problem(answer.status, &code);
                assert!(answer.body.len() < 16 << 10, "an error of {} bytes: {code}", answer.body.len());
            }
        }
        Err(Broken { status: Some(200), .. }) => {}
        Err(broken) => panic!("{path}: {broken:?}"),
    }
}
