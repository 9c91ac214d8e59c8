//! Greets `?arg=NAME`, and says how much came in the request's body.

use spin_sdk::{
    http::{IntoResponse, Request, Result, body::IncomingBodyExt},
    http_service,
};

#[http_service]
async fn greet(request: Request) -> Result<impl IntoResponse> {
    let name = request.uri().query().and_then(|query| query.strip_prefix("arg=")).unwrap_or("world").to_owned();
    if name == "fail" {
        eprintln!("out of luck");
        std::process::exit(3);
    }
    let bytes = request.into_body().bytes().await?.len();
    Ok(format!("Hello, {name}! You sent {bytes} bytes.\n"))
}
