//! From requests below `/functions` to answers.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;

use super::{
    SETTINGS, UploadError, Uploads,
    change::Done,
    etag::{Conditions, Etag},
    list::Described,
    receive,
};
use crate::{
    api::{
        Peers,
        answer::{json, whole},
        problem::Problem,
    },
    excerpt::excerpt,
    exchange::{request_body::RequestBody, response_body::ResponseBody},
    store::name::{BadModuleName, ModuleName},
};

/// Where functions are.
pub const FUNCTIONS: &str = "/functions";
/// The query of a list of those that are stored.
pub const STORED: &str = "stored";

type Answer = Result<Response<ResponseBody>, UploadError>;

/// What is below a function's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Module,
    Settings,
    Versions,
    Rollback,
    Logs,
}

impl Part {
    fn allow(self) -> &'static str {
        match self {
            Part::Module | Part::Settings => "GET, HEAD, PUT, DELETE",
            Part::Versions => "GET, HEAD, DELETE",
            Part::Rollback => "POST",
            Part::Logs => "GET, HEAD",
        }
    }
}

/// The name and what is below it, of a path below `/functions/`.
fn parse(path: &str) -> Result<(ModuleName, Part), UploadError> {
    let (name, below) = path.split_once('/').map_or((path, None), |(name, below)| (name, Some(below)));
    let part = match below {
        None => Part::Module,
        Some("settings") => Part::Settings,
        Some("versions") => Part::Versions,
        Some("rollback") => Part::Rollback,
        Some("logs") => Part::Logs,
        Some(_) => return Err(UploadError::NoRoute),
    };
    Ok((function_name(name)?, part))
}

/// A function is called without the ending of its file, which is not up to its caller here.
///
/// # Errors
/// [`BadModuleName`]
pub fn function_name(text: &str) -> Result<ModuleName, BadModuleName> {
    let ending = |text: &str| [".wasm", ".wat", ".toml"].into_iter().find(|ending| text.ends_with(ending));
    let name = match ending(text) {
        Some(".toml") | None => text,
        Some(ending) => &text[..text.len() - ending.len()],
    };
    if ending(name).is_some() { Err(BadModuleName) } else { name.parse() }
}

/// The version that a query names.
fn version(query: Option<&str>) -> Result<Option<u64>, UploadError> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let number = query.strip_prefix("version=").and_then(|number| number.parse().ok());
    let expected = "expected ?version=NUMBER, one of /versions";
    number.map(Some).ok_or_else(|| UploadError::Query { query: excerpt(query), expected })
}

impl Uploads {
    /// Whether it is for this, and not for the admin port itself.
    pub fn takes(request: &Request<Incoming>) -> bool {
        let uri = request.uri();
        uri.path().strip_prefix(FUNCTIONS).is_some_and(|rest| rest.starts_with('/'))
            || (uri.path() == FUNCTIONS && uri.query() == Some(STORED))
    }

    /// # Errors
    /// The problem that is answered.
    pub async fn answer(&self, request: Request<Incoming>, peers: &Peers) -> Result<Response<ResponseBody>, Problem> {
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        let answer = self.route(request, peers).await.map_err(Problem::from);
        if self.are_on() {
            let status = answer.as_ref().map_or_else(|problem| problem.code.status(), Response::status);
            self.metrics.uploads.answered(status, reads);
        }
        answer
    }

    async fn route(&self, request: Request<Incoming>, peers: &Peers) -> Answer {
        let client = peers.client;
        let (head, body) = {
            let (mut head, body) = request.into_parts();
            let waits = head.extensions.remove().unwrap_or_default();
            (head, RequestBody::new(body, &self.body, waits, &peers.budgets.bodies))
        };
        // Who may not is told nothing else.
        let tokens = self.tokens.as_ref().ok_or(UploadError::Off)?;
        tokens.check(&head.headers).inspect_err(|error| {
            tracing::warn!(target: "upload", %client, "refused: {error}");
        })?;
        let Some(path) = head.uri.path().strip_prefix("/functions/") else {
            return match head.method {
                Method::GET | Method::HEAD => Ok(json(&self.stored().await?)),
                method => Err(not_allowed(&method, "GET, HEAD")),
            };
        };
        let (name, part) = parse(path)?;
        let reads = [Method::GET, Method::HEAD].contains(&head.method);
        let conditions = if reads { Conditions::default() } else { Conditions::parse(&head.headers)? };
        let to = match part {
            Part::Rollback => version(head.uri.query())?,
            Part::Module | Part::Settings | Part::Versions | Part::Logs => None,
        };
        let answer = match (part, &head.method) {
            (Part::Module, _) if reads => {
                self.change(&name, conditions, |change| change.describe()).await.map(described)
            }
            (Part::Module, &Method::PUT) => {
                check_coding(&head.headers)?;
                receive::check_length(&body, self.bounds.module)?;
                self.put_module(&name, conditions, body).await.map(|(done, function)| changed(done, &function))
            }
            (Part::Module, &Method::DELETE) => {
                self.change(&name, conditions, |change| change.delete()).await.map(nothing)
            }
            (Part::Settings, _) if reads => return self.settings(&name).await,
            (Part::Settings, &Method::PUT) => {
                check_coding(&head.headers)?;
                let _place = self.doors[0].enter().await?;
                let text = receive::whole(body, SETTINGS).await?;
                self.put_settings(&name, conditions, Some(text)).await.map(status)
            }
            (Part::Settings, &Method::DELETE) => self.put_settings(&name, conditions, None).await.map(|_| nothing(())),
            (Part::Versions, _) if reads => self.versions(&name).await.map(|versions| json(&versions)),
            (Part::Versions, &Method::DELETE) => {
                self.change(&name, conditions, |change| change.forget()).await.map(nothing)
            }
            (Part::Rollback, &Method::POST) => {
                self.change(&name, conditions, move |change| change.roll_back(to)).await.map(described)
            }
            (Part::Logs, method) if reads => {
                let follow = follows(head.uri.query())?;
                return self.logs(&name, follow && *method == Method::GET).await;
            }
            (part, method) => return Err(not_allowed(method, part.allow())),
        };
        if !reads {
            match &answer {
                Ok(answer) => {
                    let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
                    let status = answer.status().as_u16();
                    tracing::info!(target: "upload", %client, method = %head.method, function = %name, ?part, status, etag, "changed");
                }
                Err(error) => {
                    tracing::warn!(target: "upload", %client, method = %head.method, function = %name, ?part, "not changed: {error}");
                }
            }
        }
        answer
    }

    /// The last lines of a function's log, and then those that come.
    async fn logs(&self, name: &ModuleName, follow: bool) -> Answer {
        let logs = self.logs.as_ref().ok_or(UploadError::Off)?;
        if !logs.knows(name.as_str()) {
            // One that has written nothing, or none at all.
            self.change(name, Conditions::default(), |change| change.describe()).await?;
        }
        let place = logs.place().ok_or(UploadError::Followers)?;
        let (pieces, reader) = logs.read(name.as_str().into(), follow, place);
        let mut answer = Response::new(ResponseBody::pieces(pieces, Box::new(reader)));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(answer)
    }

    async fn settings(&self, name: &ModuleName) -> Answer {
        let missing = UploadError::NoSettings { name: name.to_string() };
        let text = self.change(name, Conditions::default(), |change| Ok(change.settings().map(<[u8]>::to_vec))).await?;
        Ok(whole(StatusCode::OK, "application/toml", text.ok_or(missing)?))
    }
}

/// Whether a query asks for what comes, too.
fn follows(query: Option<&str>) -> Result<bool, UploadError> {
    match query {
        None | Some("") => Ok(false),
        Some("follow") => Ok(true),
        Some(query) => Err(UploadError::Query { query: excerpt(query), expected: "expected ?follow, or nothing" }),
    }
}

fn not_allowed(method: &Method, allow: &'static str) -> UploadError {
    UploadError::Method { method: excerpt(method), allow }
}

/// A body is what it is: nothing is unpacked here.
fn check_coding(headers: &HeaderMap) -> Result<(), UploadError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if coding != "identity" => {
            let query = format!("Content-Encoding: {}", excerpt(String::from_utf8_lossy(coding.as_bytes())));
            Err(UploadError::Query { query, expected: "send the file as it is" })
        }
        Some(_) | None => Ok(()),
    }
}

fn described(function: Described) -> Response<ResponseBody> {
    with_etag(json(&function), &function)
}

fn changed(done: Done, function: &Described) -> Response<ResponseBody> {
    #[derive(Serialize)]
    struct Changed<'a> {
        result: &'static str,
        #[serde(flatten)]
        function: &'a Described,
    }
    let (status, result) = match done {
        Done::Created => (StatusCode::CREATED, "created"),
        Done::Replaced => (StatusCode::OK, "replaced"),
        Done::Unchanged => (StatusCode::OK, "unchanged"),
    };
    let mut answer = with_etag(json(&Changed { result, function }), function);
    *answer.status_mut() = status;
    answer
}

fn with_etag(mut answer: Response<ResponseBody>, function: &Described) -> Response<ResponseBody> {
    if let Some(etag) = function.etag.as_deref().and_then(Etag::parse) {
        answer.headers_mut().insert(header::ETAG, etag.header());
    }
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn status(done: Done) -> Response<ResponseBody> {
    let mut answer = nothing(());
    if done == Done::Created {
        *answer.status_mut() = StatusCode::CREATED;
    }
    answer
}

fn nothing((): ()) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let parsed = |path| parse(path).ok().map(|(name, part)| (name.to_string(), part));
        for path in ["hello", "hello.wasm", "hello.wat"] {
            assert_eq!(parsed(path), Some(("hello".into(), Part::Module)));
        }
        assert_eq!(parsed("a.b/settings"), Some(("a.b".into(), Part::Settings)));
        assert_eq!(parsed("a/versions"), Some(("a".into(), Part::Versions)));
        assert_eq!(parsed("a/rollback"), Some(("a".into(), Part::Rollback)));
        assert_eq!(parsed("a/logs"), Some(("a".into(), Part::Logs)));
        let bad = [
            "",
            "/",
            "..",
            ".wasmbox",
            ".wasm",
            "a/",
            "a/b",
            "a/settings/",
            "../a",
            "%2e%2e",
            "a%2fb",
            "a.toml",
            "a.wasm.wasm",
            "a.toml.wasm",
            "a.wat.wasm",
        ];
        for bad in bad {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_in_queries() {
        assert_eq!(version(None).unwrap(), None);
        assert_eq!(version(Some("version=12")).unwrap(), Some(12));
        for bad in ["12", "version=", "version=-1", "version=a", "to=1", "version=1&x=2"] {
            assert!(version(Some(bad)).is_err(), "{bad}");
        }
    }
}
