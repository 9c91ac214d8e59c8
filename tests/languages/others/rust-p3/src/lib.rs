//! Greets `?arg=NAME`, and says how much came in the request's body.

use wasip3::{
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::spawn_local,
    wit_future, wit_stream,
};

struct Handler;

wasip3::http::service::export!(Handler);

impl Guest for Handler {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let name = target.split_once("?arg=").map_or("world", |(_, name)| name).to_owned();
        if name == "fail" {
            eprintln!("out of luck");
            std::process::exit(3);
        }
        let (body, _) = Request::consume_body(request, wit_future::new(|| Ok(())).1);
        let bytes = body.collect().await.len();
        let (mut answer, body) = wit_stream::new();
        let (response, _) = Response::new(Fields::new(), Some(body), wit_future::new(|| Ok(None)).1);
        spawn_local(async move {
            let _ = answer.write_all(format!("Hello, {name}! You sent {bytes} bytes.\n").into_bytes()).await;
        });
        Ok(response)
    }
}
