//! A handler of WASI 0.3 that keeps values: `/set?KEY,VALUE`, `/get?KEY`, `/count?KEY,TIMES`.

use wasip3::{
    clocks::monotonic_clock::wait_for,
    exports::http::handler::Guest,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::spawn_local,
    wit_future, wit_stream,
};

use self::bindings::wasi::keyvalue::{atomics, store};

mod bindings {
    wit_bindgen::generate!({ path: "../../../runtime-http/wit/keyvalue", generate_all });
}

struct Handler;

wasip3::http::service::export!(Handler);

impl Guest for Handler {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (key, word) = query.split_once(',').unwrap_or((query, ""));
        let bucket = store::open("default").expect("a store");
        let text = match path.rsplit('/').next().unwrap_or_default() {
            "set" => {
                bucket.set(key, word.as_bytes()).expect("it is kept");
                "set".to_owned()
            }
            "get" => format!("{:?}", bucket.get(key).expect("an answer").map(String::from_utf8)),
            "count" => {
                let tasks: Vec<_> = (0..word.parse().expect("?KEY,TIMES"))
                    .map(|_: u32| {
                        let key = key.to_owned();
                        spawn_local(async move {
                            wait_for(1_000_000).await;
                            let bucket = store::open("default").expect("a store");
                            atomics::increment(&bucket, &key, 1).expect("a number")
                        })
                    })
                    .collect();
                let mut most = 0;
                for task in tasks {
                    most = most.max(task.await.expect("nobody cancels it"));
                }
                most.to_string()
            }
            other => panic!("{other}?"),
        };
        let (mut to, body) = wit_stream::new();
        let (response, _) = Response::new(Fields::new(), Some(body), wit_future::new(|| Ok(None)).1);
        spawn_local(async move {
            let _ = to.write_all(text.into_bytes()).await;
        });
        Ok(response)
    }
}
