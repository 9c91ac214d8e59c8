//! Counts down, one line every 200 ms, as a component of WASI 0.3: the handler returns its answer at once, and a task writes the
//! body while the client reads it.
//!
//!     cargo build --release --target wasm32-wasip2 -p rust-stream
//!     curl -N 'localhost:8095/rust-stream?5'

use wasip3::{
    clocks::monotonic_clock::wait_for,
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::spawn_local,
    wit_future, wit_stream,
};

struct Handler;

wasip3::http::service::export!(Handler);

const PAUSE: u64 = 200_000_000;

impl Guest for Handler {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let from = target
            .split_once('?')
            .and_then(|(_, query)| query.parse::<u32>().ok())
            .unwrap_or(3)
            .min(100);

        let headers = [("content-type".into(), b"text/plain; charset=utf-8".to_vec())];
        let headers = Fields::from_list(&headers).expect("valid header names and values");
        let (mut writer, body) = wit_stream::new();
        let (_, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _) = Response::new(headers, Some(body), no_trailers);

        spawn_local(async move {
            for number in (1..=from).rev() {
                // What is left unwritten: then the client has left.
                if !writer.write_all(format!("{number}\n").into_bytes()).await.is_empty() {
                    return;
                }
                wait_for(PAUSE).await;
            }
            writer.write_all(b"lift-off\n".to_vec()).await;
        });
        Ok(response)
    }
}
