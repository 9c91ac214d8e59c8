//! The codes of errors, and the status of each.

use http::StatusCode;

/// What the type of a problem begins with, before the code.
pub const TYPE: &str = "urn:wasmbox:problem:";

/// The stable names of errors: `code` in the document, `Wasmbox-Error` in the head. docs/errors.md has a section on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Code {
    BadRequest,
    BadModuleName,
    BadLimit,
    BadArgument,
    BodyUnreadable,
    LengthRequired,
    ExceedsCapacity,
    ModuleNotFound,
    MethodNotAllowed,
    BodyTooLarge,
    ModuleInvalid,
    ModulePrecompiledUntrusted,
    GuestExit,
    GuestTrap,
    GuestMemoryLimit,
    GuestOutputLimit,
    GuestBadHeader,
    GuestNoResponse,
    PreopenUnavailable,
    Internal,
    NotImplemented,
    QueueFull,
    QueueTimeout,
    Draining,
    Evicted,
    Compiling,
    DeadlineExceeded,
    UploadsOff,
    Unauthorized,
    VersionNotFound,
    FunctionConflict,
    PreconditionFailed,
    UploadsBusy,
    FunctionsFull,
    DiskFull,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad-request",
            Code::BadModuleName => "bad-module-name",
            Code::BadLimit => "bad-limit",
            Code::BadArgument => "bad-argument",
            Code::BodyUnreadable => "body-unreadable",
            Code::LengthRequired => "length-required",
            Code::ExceedsCapacity => "exceeds-capacity",
            Code::ModuleNotFound => "module-not-found",
            Code::MethodNotAllowed => "method-not-allowed",
            Code::BodyTooLarge => "body-too-large",
            Code::ModuleInvalid => "module-invalid",
            Code::ModulePrecompiledUntrusted => "module-precompiled-untrusted",
            Code::GuestExit => "guest-exit",
            Code::GuestTrap => "guest-trap",
            Code::GuestMemoryLimit => "guest-memory-limit",
            Code::GuestOutputLimit => "guest-output-limit",
            Code::GuestBadHeader => "guest-bad-header",
            Code::GuestNoResponse => "guest-no-response",
            Code::PreopenUnavailable => "preopen-unavailable",
            Code::Internal => "internal",
            Code::NotImplemented => "not-implemented",
            Code::QueueFull => "queue-full",
            Code::QueueTimeout => "queue-timeout",
            Code::Draining => "draining",
            Code::Evicted => "evicted",
            Code::Compiling => "compiling",
            Code::DeadlineExceeded => "deadline-exceeded",
            Code::UploadsOff => "uploads-off",
            Code::Unauthorized => "unauthorized",
            Code::VersionNotFound => "version-not-found",
            Code::FunctionConflict => "function-conflict",
            Code::PreconditionFailed => "precondition-failed",
            Code::UploadsBusy => "uploads-busy",
            Code::FunctionsFull => "functions-full",
            Code::DiskFull => "disk-full",
        }
    }

    pub fn status(self) -> StatusCode {
        match self {
            Code::BadRequest
            | Code::BadModuleName
            | Code::BadLimit
            | Code::BadArgument
            | Code::BodyUnreadable
            | Code::ExceedsCapacity => StatusCode::BAD_REQUEST,
            Code::LengthRequired => StatusCode::LENGTH_REQUIRED,
            Code::ModuleNotFound | Code::UploadsOff | Code::VersionNotFound => StatusCode::NOT_FOUND,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::FunctionConflict => StatusCode::CONFLICT,
            Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Code::FunctionsFull | Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::ModuleInvalid | Code::ModulePrecompiledUntrusted => StatusCode::UNPROCESSABLE_ENTITY,
            Code::GuestExit
            | Code::GuestTrap
            | Code::GuestMemoryLimit
            | Code::GuestOutputLimit
            | Code::GuestBadHeader
            | Code::GuestNoResponse
            | Code::PreopenUnavailable
            | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Code::QueueFull
            | Code::QueueTimeout
            | Code::Draining
            | Code::Evicted
            | Code::Compiling
            | Code::UploadsBusy => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Code::BadRequest => "The request's head is not acceptable",
            Code::BadModuleName => "Not a module's name",
            Code::BadLimit => "A limit header is not acceptable",
            Code::BadArgument => "An argument cannot be passed to the function",
            Code::BodyUnreadable => "The request body could not be read",
            Code::LengthRequired => "The request body's length must be known",
            Code::ExceedsCapacity => "The request could never be admitted",
            Code::ModuleNotFound => "No such function",
            Code::MethodNotAllowed => "This function does not take that method",
            Code::BodyTooLarge => "The request body is too large",
            Code::ModuleInvalid => "The module cannot be run",
            Code::ModulePrecompiledUntrusted => "Native images are not trusted here",
            Code::GuestExit => "The function exited with an error",
            Code::GuestTrap => "The function trapped",
            Code::GuestMemoryLimit => "The function reached its memory limit",
            Code::GuestOutputLimit => "The function reached its output limit",
            Code::GuestBadHeader => "The function wrote a bad CGI header block",
            Code::GuestNoResponse => "The function made no response",
            Code::PreopenUnavailable => "A directory granted to the function cannot be opened",
            Code::Internal => "Internal error",
            Code::NotImplemented => "The server has no such feature of HTTP",
            Code::QueueFull => "Too much is waiting",
            Code::QueueTimeout => "Waited too long for capacity",
            Code::Draining => "The server is shutting down",
            Code::Evicted => "The server ran short of memory",
            Code::Compiling => "The function is not compiled yet",
            Code::DeadlineExceeded => "The function did not end in time",
            Code::UploadsOff => "Functions are not put here through this port",
            Code::Unauthorized => "A token is needed",
            Code::VersionNotFound => "No such version of the function",
            Code::FunctionConflict => "Somebody else's files are in the way",
            Code::PreconditionFailed => "The function is not as the request wants it",
            Code::UploadsBusy => "Too many functions are being put here",
            Code::FunctionsFull => "There is no place for more functions",
            Code::DiskFull => "The functions directory's volume is full",
        }
    }

    /// Seconds after which another attempt may succeed: for each 503.
    pub(super) fn retry_after(self) -> Option<u32> {
        match self {
            Code::QueueFull | Code::QueueTimeout | Code::Draining | Code::Evicted => Some(1),
            Code::Compiling | Code::UploadsBusy => Some(2),
            Code::BadRequest
            | Code::BadModuleName
            | Code::BadLimit
            | Code::BadArgument
            | Code::BodyUnreadable
            | Code::LengthRequired
            | Code::ExceedsCapacity
            | Code::ModuleNotFound
            | Code::MethodNotAllowed
            | Code::BodyTooLarge
            | Code::ModuleInvalid
            | Code::ModulePrecompiledUntrusted
            | Code::GuestExit
            | Code::GuestTrap
            | Code::GuestMemoryLimit
            | Code::GuestOutputLimit
            | Code::GuestBadHeader
            | Code::GuestNoResponse
            | Code::PreopenUnavailable
            | Code::Internal
            | Code::NotImplemented
            | Code::DeadlineExceeded
            | Code::UploadsOff
            | Code::Unauthorized
            | Code::VersionNotFound
            | Code::FunctionConflict
            | Code::PreconditionFailed
            | Code::FunctionsFull
            | Code::DiskFull => None,
        }
    }
}
