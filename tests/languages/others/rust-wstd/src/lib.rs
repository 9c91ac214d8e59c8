//! Greets `?arg=NAME`, and says how much came in the request's body.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(mut request: Request<Body>) -> Result<Response<Body>, Error> {
    let name = request.uri().query().and_then(|query| query.strip_prefix("arg=")).unwrap_or("world").to_owned();
    if name == "fail" {
        eprintln!("out of luck");
        std::process::exit(3);
    }
    let bytes = request.body_mut().contents().await?.len();
    Ok(Response::new(Body::from(format!("Hello, {name}! You sent {bytes} bytes.\n"))))
}
