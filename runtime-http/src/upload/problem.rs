//! Which code an upload's error has.

use http::HeaderValue;

use super::UploadError;
use crate::{
    api::problem::{Code, Problem, load_error_code},
    exchange::request_body::BodyError,
    invocation::Failure,
};

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        let detail = error.to_string();
        let code = match error {
            UploadError::Off => Code::UploadsOff,
            UploadError::Unauthorized | UploadError::WrongToken => Code::Unauthorized,
            UploadError::NoRoute | UploadError::NoFunction { .. } | UploadError::NoSettings { .. } => {
                Code::ModuleNotFound
            }
            UploadError::Method { allow, .. } => {
                return Problem::new(Code::MethodNotAllowed, detail).allowing(HeaderValue::from_static(allow));
            }
            UploadError::Name(error) => return error.into(),
            UploadError::Query { .. } | UploadError::Condition(_) => Code::BadRequest,
            UploadError::Body(BodyError::TooLarge { limit }) => return Failure::BodyTooLarge { limit }.into(),
            UploadError::Body(BodyError::Read(_) | BodyError::TooSlow) | UploadError::TooSlow => Code::BodyUnreadable,
            UploadError::Load(error) => load_error_code(&error),
            UploadError::NoVersion { .. } => Code::VersionNotFound,
            UploadError::Precondition { .. } => Code::PreconditionFailed,
            UploadError::Conflict { .. } => Code::FunctionConflict,
            UploadError::Busy | UploadError::Followers => Code::UploadsBusy,
            UploadError::TooMany { .. } | UploadError::TooMuch { .. } => Code::FunctionsFull,
            UploadError::DiskFull { .. } => Code::DiskFull,
            UploadError::Io { .. } => Code::Internal,
        };
        Problem::new(code, detail)
    }
}
