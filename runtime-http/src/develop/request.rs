//! What a call asks for, as it is written on the command line.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    str::FromStr,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::limits::{CpuQuota, InvocationTimeout, MemoryRequest};

/// A limit of one invocation: `memory-request=64Mi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub name: &'static str,
    pub value: String,
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Limit, String> {
        fn checked<T: FromStr<Err: ToString> + ToString>(name: &'static str, value: &str) -> Result<Limit, String> {
            let value = value.parse::<T>().map_err(|error| error.to_string())?;
            // As it is written everywhere else, too.
            Ok(Limit { name, value: value.to_string() })
        }
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "cpu-quota" => checked::<CpuQuota>("cpu-quota", value),
            "memory-request" => checked::<MemoryRequest>("memory-request", value),
            "invocation-timeout" => checked::<InvocationTimeout>("invocation-timeout", value),
            _ => Err("expected cpu-quota=VALUE, memory-request=VALUE or invocation-timeout=VALUE".into()),
        }
    }
}

/// `Name: value`.
#[derive(Debug, Clone)]
pub struct Header(HeaderName, HeaderValue);

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Header, String> {
        let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
        let name = name.trim().parse().map_err(|error| format!("{error}"))?;
        Ok(Header(name, value.trim().parse().map_err(|error| format!("{error}"))?))
    }
}

/// A body: the text itself, `@FILE`, or `@-` for standard input.
#[derive(Debug, Clone)]
pub enum Data {
    Text(String),
    File(PathBuf),
    StandardInput,
}

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("--data @{}: {source}", path.display())]
    Data { path: PathBuf, source: io::Error },
    #[error("{target:?} cannot be asked for: {source}; expected NAME, NAME/PATH or NAME?QUERY, percent-encoded")]
    Target { target: String, source: http::Error },
}

impl From<String> for Data {
    fn from(text: String) -> Data {
        match text.strip_prefix('@') {
            Some("-") => Data::StandardInput,
            Some(path) => Data::File(path.into()),
            None => Data::Text(text),
        }
    }
}

impl Data {
    fn read(&self) -> Result<Bytes, RequestError> {
        let read = match self {
            Data::Text(text) => return Ok(text.clone().into()),
            Data::File(path) => fs::read(path),
            Data::StandardInput => {
                let mut bytes = Vec::new();
                io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
            }
        };
        let path = if let Data::File(path) = self { path.clone() } else { "-".into() };
        read.map(Bytes::from).map_err(|source| RequestError::Data { path, source })
    }
}

/// One call, whoever is asked.
#[derive(Debug, clap::Args)]
pub struct CallArgs {
    /// Argument of the function; may be given several times
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    pub args: Vec<String>,
    /// Body of the request: TEXT, @FILE, or @- for standard input
    #[arg(long, value_name = "DATA", value_parser = clap::builder::ValueParser::from(parse_data), allow_hyphen_values = true)]
    pub data: Option<Data>,
    /// Limit of this call: cpu-quota=250, memory-request=64Mi or invocation-timeout=5s; may be given several times
    #[arg(long = "limit", value_name = "NAME=VALUE")]
    pub limits: Vec<Limit>,
    /// Method of the request [default: POST with a body, else GET]
    #[arg(long)]
    pub method: Option<Method>,
    /// Header of the request; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<Header>,
}

#[allow(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn parse_data(text: &str) -> Result<Data, std::convert::Infallible> {
    Ok(text.to_owned().into())
}

impl CallArgs {
    /// The request to the box at `address`.
    ///
    /// # Errors
    /// [`RequestError`], if there is no such target, or the body cannot be read.
    pub fn request(&self, address: &str, target: &str) -> Result<Request<Full<Bytes>>, RequestError> {
        let body = self.data.as_ref().map(Data::read).transpose()?;
        let method = self.method.clone().unwrap_or(if body.is_some() { Method::POST } else { Method::GET });
        let mut request = Request::builder()
            .method(method)
            .uri(self.path(target))
            .header(header::HOST, address)
            .header(header::USER_AGENT, concat!("wasmbox/", env!("CARGO_PKG_VERSION")));
        for limit in &self.limits {
            request = request.header(limit.name, &limit.value);
        }
        for Header(name, value) in &self.headers {
            request = request.header(name, value);
        }
        let failed = |source| RequestError::Target { target: target.to_owned(), source };
        request.body(Full::new(body.unwrap_or_default())).map_err(failed)
    }

    /// With the arguments at the end of its query.
    fn path(&self, target: &str) -> String {
        let mut path = format!("/{}", target.trim_start_matches('/'));
        for argument in &self.args {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str("arg=");
            path.extend(utf8_percent_encode(argument, NON_ALPHANUMERIC));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: &[&str], data: Option<&str>, limits: &[&str]) -> CallArgs {
        CallArgs {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            data: data.map(|data| data.to_owned().into()),
            limits: limits.iter().map(|limit| limit.parse().unwrap()).collect(),
            method: None,
            headers: vec!["X-One:  1 ".parse().unwrap()],
        }
    }

    #[test]
    fn requests() {
        let request = call(&[], None, &[]).request("box:1", "hello").unwrap();
        assert_eq!((request.method(), request.uri().to_string()), (&Method::GET, "/hello".into()));
        assert_eq!(
            (&request.headers()["host"], &request.headers()["x-one"]),
            (&"box:1".parse().unwrap(), &"1".parse().unwrap())
        );
        let limits = ["memory-request=64Mi", "cpu-quota=250", "invocation-timeout=5s"];
        let request = call(&["a b", "&é"], Some("text"), &limits).request("box:1", "/hello/path?x=1").unwrap();
        assert_eq!(request.uri().to_string(), "/hello/path?x=1&arg=a%20b&arg=%26%C3%A9");
        assert_eq!(request.method(), Method::POST);
        for (name, value) in [("memory-request", "64Mi"), ("cpu-quota", "250m"), ("invocation-timeout", "5000ms")] {
            assert_eq!(request.headers()[name], value);
        }
        assert!(call(&[], None, &[]).request("box:1", "a b").is_err());
        assert!(call(&[], Some("@/nowhere/file"), &[]).request("box:1", "a").is_err());
    }

    #[test]
    fn bad_limits_say_what_is_expected() {
        for (bad, expected) in
            [("memory=1", "memory-request=VALUE"), ("memory-request", "MiB"), ("cpu-quota=lots", "millicores")]
        {
            let error = bad.parse::<Limit>().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
