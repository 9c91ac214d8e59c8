//! Components with wasi:http/incoming-handler: they get the request itself and make the response.
//!
//! - [`request`]: what they are told; [`response`]: what becomes of what they say; [`streaming`]: both while they last
//! - [`outbound`]: what they ask others; [`world`]: what else they have

mod outbound;
mod request;
mod response;
mod streaming;
mod world;

use wasmbox_tests::{WasmBox, component::http_guest};

fn server() -> WasmBox {
    WasmBox::with("http.wasm", http_guest())
}
