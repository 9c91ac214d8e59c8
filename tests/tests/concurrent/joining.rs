//! Requests that stay in an instance, and those that come to them.

use http::{Response, Version};
use hyper::body::Incoming;
use wasmbox_tests::{WasmBox, Wire, client::Http2, eventually, wire::Head};

use super::uses;

/// An answer that has begun, of a request that stays in its instance.
pub enum Open {
    Http1(Wire, Head),
    Http2(Http2, Response<Incoming>),
}

impl Open {
    pub fn new(server: &WasmBox, version: Version, path: &str) -> Open {
        if version == Version::HTTP_2 {
            let connection = Http2::connect(server.address());
            let response = connection.open(path);
            return Open::Http2(connection, response);
        }
        let mut wire = server.wire(format!("GET {path} HTTP/1.1\r\nHost: box\r\n\r\n"));
        let head = wire.head();
        Open::Http1(wire, head)
    }

    pub fn instance(&self) -> &str {
        let headers = match self {
            Open::Http1(_, head) => &head.headers,
            Open::Http2(_, response) => response.headers(),
        };
        headers["wasmbox-instance"].to_str().expect("text")
    }

    /// Its client leaves, so that the server knows it: a connection that is only closed may be one whose client has no more to send.
    pub fn leave(self) {
        if let Open::Http1(wire, _) = self {
            wire.reset();
        }
    }

    /// All of it; `None` if it is broken off.
    pub fn rest(self) -> Option<String> {
        let bytes = match self {
            Open::Http1(mut wire, head) if head.headers.contains_key("content-length") => {
                let length = head.headers["content-length"].to_str().expect("text").parse().expect("a length");
                wire.bytes(length)
            }
            Open::Http1(mut wire, _) => {
                let mut bytes = Vec::new();
                while let Some(chunk) = wire.chunk().ok()? {
                    bytes.extend(chunk);
                }
                bytes
            }
            Open::Http2(connection, response) => connection.rest(response).ok()?.body.to_vec(),
        };
        Some(String::from_utf8(bytes).expect("text"))
    }
}

/// Of a request that comes to others. One that comes when a task of theirs runs, or whose machine is busy, has an instance of its own, and leaves.
pub fn try_to_join(server: &WasmBox, version: Version, path: &str) -> Option<Open> {
    let before = server.running("p3");
    let open = Open::new(server, version, path);
    if open.instance() == "joined" {
        return Some(open);
    }
    open.leave();
    eventually("it has left", || (server.running("p3") <= before).then_some(()));
    None
}

pub fn joined(server: &WasmBox, version: Version, path: &str) -> Open {
    eventually("an instance takes another request", || try_to_join(server, version, path))
}

/// Has those leave who stay.
pub fn leave(server: &WasmBox, version: Version) {
    eventually("one joins them and has them leave", || {
        let number = try_to_join(server, version, "/p3/leave")?.rest()?;
        // Alone it has met one that has just been answered elsewhere.
        (number != "1").then_some(())
    });
}

/// Of one that joins, and is not answered before its instance ends.
pub fn sleeping(server: &WasmBox) -> Wire {
    let (before, all) = (server.running("p3"), || ["fresh", "reused", "joined"].map(|instance| uses(server, instance)));
    eventually("an instance takes another request", || {
        let [fresh, reused, joined] = all();
        let wire = server.wire("GET /p3/sleep HTTP/1.1\r\nHost: box\r\n\r\n");
        let after = eventually("it has an instance", || Some(all()).filter(|now| *now != [fresh, reused, joined]));
        if after == [fresh, reused, joined + 1.0] {
            return Some(wire);
        }
        wire.reset();
        eventually("it has left", || (server.running("p3") <= before).then_some(()));
        None
    })
}
