//! Every error a client can be told, as `application/problem+json` (RFC 9457). [`crate::code`] alone decides statuses.

use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::arguments::BadArgument;
pub use crate::code::Code;
use crate::{
    admission::Refused,
    code::TYPE,
    confined::CompilerError,
    excerpt::excerpt,
    exchange::response_body::ResponseBody,
    invocation::Failure,
    limits::BadLimit,
    store::{LoadError, StoreError, compiler::CompileError, file::FileError, name::BadModuleName},
};

/// Seconds: how long a module takes is an estimate, and it may be ready before.
const LONGEST_RETRY_AFTER: f64 = 60.0;

/// An error for the client.
#[derive(Debug, Clone)]
pub struct Problem {
    pub code: Code,
    pub detail: String,
    /// Members beside the standard ones.
    members: Map<String, Value>,
    /// For 405.
    allow: Option<HeaderValue>,
    /// Seconds, if more is known of it than the code says.
    retry_after: Option<u32>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem { code, detail: detail.into(), members: Map::new(), allow: None, retry_after: None }
    }

    pub fn method_not_allowed(method: &http::Method, allow: &HeaderValue) -> Self {
        let method = excerpt(method);
        let listed = allow.to_str().unwrap_or_default();
        let detail = format!("{method} is not among the methods of this function: {listed}");
        Problem::new(Code::MethodNotAllowed, detail).allowing(allow.clone())
    }

    /// With the methods that there are, for 405.
    #[must_use]
    pub fn allowing(self, allow: HeaderValue) -> Self {
        Problem { allow: Some(allow), ..self }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    pub fn into_response(self) -> http::Response<ResponseBody> {
        let status = self.code.status();
        let mut document = json!({
            "type": format!("{TYPE}{}", self.code.as_str()),
            "title": self.code.title(),
            "status": status.as_u16(),
            "detail": self.detail,
            "code": self.code.as_str(),
        });
        if let Some(document) = document.as_object_mut() {
            document.extend(self.members);
        }
        let mut text = document.to_string();
        text.push('\n');
        let mut response = http::Response::new(ResponseBody::full(text.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert("wasmbox-error", HeaderValue::from_static(self.code.as_str()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after.or(self.code.retry_after()) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wasmbox\""));
        }
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, allow);
        }
        response
    }
}

impl From<BadModuleName> for Problem {
    fn from(error: BadModuleName) -> Self {
        Problem::new(Code::BadModuleName, error.to_string())
    }
}

impl From<BadLimit> for Problem {
    fn from(error: BadLimit) -> Self {
        let detail = error.to_string();
        Problem::new(Code::BadLimit, detail)
            .with("header", error.header)
            .with("value", error.value)
            .with("minimum", error.minimum)
            .with("maximum", error.maximum)
    }
}

impl From<BadArgument> for Problem {
    fn from(error: BadArgument) -> Self {
        Problem::new(Code::BadArgument, error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compiling { takes, .. } => {
                let seconds = takes.as_secs_f64().ceil().clamp(1.0, LONGEST_RETRY_AFTER) as u32;
                Problem { retry_after: Some(seconds), ..Problem::new(Code::Compiling, error.to_string()) }
            }
            StoreError::Load(error) => Problem::new(load_error_code(&error), error.to_string()),
        }
    }
}

pub fn load_error_code(error: &LoadError) -> Code {
    match error {
        LoadError::File(FileError::NotFound { .. } | FileError::NotRegular { .. }) => Code::ModuleNotFound,
        LoadError::File(FileError::Unsettled { .. }) => Code::Compiling,
        LoadError::File(FileError::Io { .. }) | LoadError::Aborted { .. } => Code::Internal,
        LoadError::File(FileError::TooLarge { .. }) | LoadError::Settings(_) | LoadError::Program { .. } => {
            Code::ModuleInvalid
        }
        LoadError::Compile { source, .. } => compile_error_code(source),
    }
}

fn compile_error_code(error: &CompileError) -> Code {
    match error {
        CompileError::PrecompiledUntrusted => Code::ModulePrecompiledUntrusted,
        CompileError::UnknownFormat
        | CompileError::Text(_)
        | CompileError::Node(_)
        | CompileError::PrecompiledUnusable(_)
        // It needs more than the pools have for one invocation.
        | CompileError::Unloadable(_)
        | CompileError::Compiler(
            CompilerError::Invalid(_) | CompilerError::TooLong { .. } | CompilerError::Crashed { .. },
        ) => Code::ModuleInvalid,
        // It is tried again in a moment.
        CompileError::Compiler(CompilerError::Killed | CompilerError::Stopped) => Code::Compiling,
        CompileError::Compiler(CompilerError::Unconfined(_) | CompilerError::Io { .. }) | CompileError::Memory(_) => {
            Code::Internal
        }
    }
}

impl From<Refused> for Problem {
    fn from(error: Refused) -> Self {
        let code = match error {
            Refused::ExceedsCapacity { .. } => Code::ExceedsCapacity,
            Refused::QueueFull { .. } => Code::QueueFull,
            Refused::QueueTimeout => Code::QueueTimeout,
            Refused::Draining => Code::Draining,
        };
        Problem::new(code, error.to_string())
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let problem = Problem::new(failure.code(), failure.to_string());
        match failure {
            Failure::Exit { code } => problem.with("exit_code", code),
            Failure::Trap { trap } => problem.with("trap", trap),
            Failure::MemoryLimit { wanted, limit } => problem.with("limit_bytes", limit).with("wanted_bytes", wanted),
            Failure::OutputLimit { limit } | Failure::BodyTooLarge { limit } => problem.with("limit_bytes", limit),
            Failure::Reported { failure, .. } => Problem { detail: problem.detail, ..Problem::from(*failure) },
            // The reason may name what is none of the client's business, like paths of the host.
            Failure::Internal { .. } => {
                let detail = "internal error; the server's log says why, under this Wasmbox-Invocation-Id".into();
                Problem { detail, ..problem }
            }
            _ => problem,
        }
    }
}
