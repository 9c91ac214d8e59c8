//! What can be wrong with an upload, or a change of a function.

use std::io;

use super::{directory_quota::NoSpace, etag::BadCondition, receive::LONGEST};
use crate::{
    exchange::request_body::BodyError,
    store::{LoadError, name::BadModuleName, settings::BadSettings},
};

/// Why a function was not put here, or changed.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(
        "functions are not put here through this port: start the box with --upload-token-file FILE (UPLOAD_TOKEN_FILE), a file with a token, \
         in Helm `uploads.enabled`"
    )]
    Off,
    #[error("show a token of the box's --upload-token-file: Authorization: Bearer TOKEN")]
    Unauthorized,
    #[error("the token that was shown is none of the box's --upload-token-file")]
    WrongToken,
    #[error("there are /functions/{{name}}, and below it /settings, /versions, /rollback and /logs")]
    NoRoute,
    #[error("{method} is not among the methods of this path: {allow}")]
    Method { method: String, allow: &'static str },
    #[error(transparent)]
    Name(#[from] BadModuleName),
    #[error("{query:?} is not understood here; {expected}")]
    Query { query: String, expected: &'static str },
    #[error(transparent)]
    Condition(#[from] BadCondition),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the upload takes longer than {} s", LONGEST.as_secs())]
    TooSlow,
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("no function {name:?}")]
    NoFunction { name: String },
    #[error("{name} has no settings")]
    NoSettings { name: String },
    #[error("{}", no_version(name, *version))]
    NoVersion { name: String, version: Option<u64> },
    #[error("{}; GET it for its ETag", precondition(name, etag.as_deref()))]
    Precondition { name: String, etag: Option<String> },
    #[error("{what}")]
    Conflict { what: &'static str },
    #[error("too many functions are being put here or changed")]
    Busy,
    #[error("too many read logs of functions; end one, or try again later")]
    Followers,
    #[error("there are {most} functions already (--upload-max-functions); delete some")]
    TooMany { most: usize },
    #[error(
        "functions and their earlier versions would have more than {most} bytes (--upload-total-size); delete some, or versions of some"
    )]
    TooMuch { most: u64 },
    #[error("{step}: the volume of the functions directory has no space left")]
    DiskFull { step: &'static str },
    #[error("{step}: {source}")]
    Io { step: &'static str, source: io::Error },
}

fn no_version(name: &str, version: Option<u64>) -> String {
    match version {
        Some(version) => format!("{name} has no version {version}"),
        None => format!("{name} has no earlier version"),
    }
}

fn precondition(name: &str, etag: Option<&str>) -> String {
    match etag {
        Some(etag) => format!("{name} is not as the request wants it, its ETag is \"{etag}\""),
        None => format!("{name} is not as the request wants it: there is none"),
    }
}

impl From<NoSpace> for UploadError {
    fn from(error: NoSpace) -> UploadError {
        UploadError::TooMuch { most: error.most }
    }
}

impl From<BadSettings> for UploadError {
    fn from(error: BadSettings) -> UploadError {
        UploadError::Load(error.into())
    }
}
