//! Parsers of requests, and of what functions answer.

#[path = "../../runtime-http/src/api/arguments.rs"]
pub mod arguments;
#[path = "../../runtime-http/src/api/cgi.rs"]
pub mod cgi;
#[path = "../../runtime-http/src/api/route.rs"]
pub mod route;
