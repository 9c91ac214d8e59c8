//! Requests that functions send to others: over real sockets, from a box in its usual, confined mode.
//!
//! - [`protocols`]: HTTP/1.1 and HTTP/2, bodies, trailers, what breaks off; [`timeouts`]; [`tls`]: who is trusted
//! - [`reuse`]: idle connections, and whose they are; [`bounds`]: what requests may hold, and what is told of them
//!
//! What is about HTTP and TLS is tested with a guest of WASI 0.2 and one of 0.3, which do the same.
//!
//! - [`grants`]: what may be reached; [`names`]: what names may lead to; [`sockets`]: the same for connections of functions' own

/// Each of these functions is two tests, which it is given the guest of.
macro_rules! with_both_guests {
    ($($test:ident),+ $(,)?) => {
        mod p2 {
            $(#[test] fn $test() { super::$test(crate::Wasi::P2); })+
        }
        mod p3 {
            $(#[test] fn $test() { super::$test(crate::Wasi::P3); })+
        }
    };
}

mod bounds;
mod grants;
mod names;
mod protocols;
mod reuse;
mod sockets;
mod timeouts;
mod tls;

use wasmbox_tests::{
    Authority, Upstream, WasmBox,
    component::{http_guest, p3_guest},
    server::Launch,
};

/// What a function is a component of.
#[derive(Debug, Clone, Copy)]
enum Wasi {
    P2,
    P3,
}

impl Wasi {
    fn guest(self) -> &'static [u8] {
        match self {
            Wasi::P2 => http_guest(),
            Wasi::P3 => p3_guest(),
        }
    }
}

/// A server for each way to speak HTTP, and the box that may send requests to all of them.
struct Servers {
    all: Vec<(&'static str, Upstream)>,
    authority: Authority,
}

impl Servers {
    fn start() -> Servers {
        let authority = Authority::new();
        let secure = |protocols| Upstream::secure("127.0.0.1:0", authority.server(&["127.0.0.1"], protocols));
        let all = vec![
            ("http", Upstream::plain("127.0.0.1:0")),
            ("https", secure(&["http/1.1"])),
            ("https", secure(&["h2", "http/1.1"])),
        ];
        Servers { all, authority }
    }

    /// Those of HTTP/1.1, then the one of HTTP/2: the beginning of their URLs.
    fn urls(&self) -> Vec<String> {
        self.all.iter().map(|(scheme, server)| format!("{scheme}://{}", server.address())).collect()
    }

    fn grants(&self) -> Vec<String> {
        self.all.iter().map(|(_, server)| server.address().to_string()).collect()
    }

    /// A box with the function `http`, which may use them, not started yet.
    fn launch(&self) -> Launch {
        self.launch_of(Wasi::P2)
    }

    fn launch_of(&self, wasi: Wasi) -> Launch {
        let launch = granted_to(wasi, "http", &self.grants()).flag("--allow-outbound", self.grants().join(","));
        self.trusted(launch)
    }

    fn trusted(&self, launch: Launch) -> Launch {
        let file = launch.directory().join("authority.pem");
        self.authority.write(&file);
        launch.flag("--outbound-ca", file.display())
    }
}

/// A box with a function whose settings name these.
fn granted(function: &str, grants: &[String]) -> Launch {
    granted_to(Wasi::P2, function, grants)
}

fn granted_to(wasi: Wasi, function: &str, grants: &[String]) -> Launch {
    add_of(wasi, WasmBox::launch(), function, grants)
}

fn add(launch: Launch, function: &str, grants: &[String]) -> Launch {
    add_of(Wasi::P2, launch, function, grants)
}

fn add_of(wasi: Wasi, launch: Launch, function: &str, grants: &[String]) -> Launch {
    launch
        .function(&format!("{function}.wasm"), wasi.guest())
        .function(&format!("{function}.toml"), format!("allowed-outbound-hosts = {grants:?}"))
}

/// What the function `http` says that came: `METHOD,URL,OPTIONS`.
fn fetch(server: &WasmBox, what: &str) -> String {
    fetch_by(server, "http", what)
}

fn fetch_by(server: &WasmBox, function: &str, what: &str) -> String {
    server.get(&format!("/{function}/fetch?{what}")).ok().text().to_owned()
}

/// `text` has all of `parts`.
#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}
