//! A function's program with the input that a request gives it.

use std::time::Instant;

use http::{HeaderValue, Method, Request, header, request::Parts};
use http_body::Body;

use super::{
    Peers, arguments, cgi,
    input::{Purpose, ReadAhead, read_ahead},
    problem::{Code, Problem},
};
use crate::{
    exchange::request_body::RequestBody,
    limits::Limits,
    sandbox::{Call, CommandInput, Program, Stdio},
    store::{
        function::Function,
        name::ModuleName,
        settings::{EnvironmentMode, OutputMode, PathMode},
    },
};

/// The program of `function` with its input; reads what of the body must be read before.
pub async fn call(
    request: Request<RequestBody>,
    name: &ModuleName,
    function: &Function,
    peers: &Peers,
    deadline: Instant,
    limits: Limits,
) -> Result<Call, Problem> {
    let (mut head, body) = request.into_parts();
    let timeout_ms = limits.timeout.duration().as_millis();
    match &function.program {
        Program::Core(program) => {
            let body = read_ahead(body, purpose(function), deadline, timeout_ms).await?;
            Ok(Call::Core(program.clone(), command_input(&head, name, function, body, peers)?))
        }
        Program::Command(program) => {
            let body = read_ahead(body, purpose(function), deadline, timeout_ms).await?;
            Ok(Call::Command(program.clone(), command_input(&head, name, function, body, peers)?))
        }
        Program::Http(program) => {
            let body = read_ahead(body, Purpose::Request, deadline, timeout_ms).await?;
            if function.path == PathMode::Stripped {
                head.uri = stripped(&head.uri, name);
            }
            // HTTP/1.0 may come without a host, which the guest is promised.
            if head.uri.authority().is_none() && !head.headers.contains_key(header::HOST) {
                head.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
            }
            Ok(Call::Http(program.clone(), Request::from_parts(head, body.body), None))
        }
    }
}

/// CGI promises a program the length of its input.
fn purpose(function: &Function) -> Purpose {
    if function.output == OutputMode::Cgi { Purpose::Cgi } else { Purpose::Input }
}

/// Arguments, environment and standard input of a command.
fn command_input(
    head: &Parts,
    name: &ModuleName,
    function: &Function,
    body: ReadAhead,
    peers: &Peers,
) -> Result<CommandInput, Problem> {
    let mut args = vec![name.to_string()];
    args.extend(function.grants.args.iter().cloned());
    if let Some(parameter) = body.parameter {
        args.push(arguments::checked(parameter, args.len())?);
    }
    args.extend(arguments::arguments(head.uri.query().unwrap_or_default())?);
    // Bodies without a length are known to be empty only when they have none.
    let has_body = |length: &u64| *length > 0 || ![Method::GET, Method::HEAD].contains(&head.method);
    let length = body.body.size_hint().exact().filter(has_body);
    let env = if function.environment == EnvironmentMode::Cgi && function.program.reads_environment() {
        let path = cgi::path_info(head.uri.path()).map_err(|detail| Problem::new(Code::BadArgument, detail))?;
        cgi::environment(head, name.as_str(), path, length, peers.server, peers.client)
    } else {
        Vec::new()
    };
    Ok(CommandInput { args, env, stdio: Stdio::Client(body.body) })
}

/// `/module/path?query` as `/path?query`.
fn stripped(uri: &http::Uri, name: &ModuleName) -> http::Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(name.as_str())).unwrap_or(path);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = rest.parse().ok();
    http::Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}
