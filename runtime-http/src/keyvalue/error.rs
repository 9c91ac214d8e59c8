//! Why a function does not get or keep a value.

use super::{MOST_BATCH, MOST_KEY, MOST_VALUE};
use crate::excerpt::excerpt;

#[derive(Debug, thiserror::Error)]
pub enum KeyvalueError {
    /// There is one store, which is called `default`, or nothing.
    #[error("there is no such store: open `default`")]
    NoSuchStore,
    /// Whoever runs the function gives it none.
    #[error("there is no store here")]
    NoStore,
    #[error("a key has 1 to {MOST_KEY} bytes, this one {bytes}")]
    Key { bytes: usize },
    #[error("a value has at most {MOST_VALUE} bytes, this one {bytes}")]
    Value { bytes: usize },
    #[error("a call names at most {MOST_BATCH} keys, this one {count}")]
    Batch { count: usize },
    #[error(
        "the function would keep more than {quota} bytes: delete some keys, or ask the operator for more (--keyvalue-quota, KEYVALUE_QUOTA)"
    )]
    Quota { quota: u64 },
    #[error(
        "the invocation has no room for {bytes} bytes more: ask for a larger Memory-Request, or for fewer values at once"
    )]
    Memory { bytes: usize },
    #[error("the value is no number from 0 to {}, or the sum is none", u64::MAX)]
    NotANumber,
    #[error("the cursor is none of this bucket's last pages: list from the beginning")]
    Cursor,
    /// For the operator's log; guests are told that it failed.
    #[error("the store failed; the box's log says why")]
    Storage { reason: String },
    /// The table of the guest's handles is full, or it gave one that it has not.
    #[error("{0}")]
    Handle(#[from] wasmtime::component::ResourceTableError),
}

impl KeyvalueError {
    pub(super) fn storage(error: impl std::fmt::Display) -> KeyvalueError {
        KeyvalueError::Storage { reason: excerpt(error) }
    }
}
