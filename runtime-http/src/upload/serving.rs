//! What serves a name now: the file that the store finds, and what it has in it.

use std::fs::File;

use super::{
    UploadError, beneath,
    etag::{Digest, Etag},
    volume::{Opened, failed},
};
use crate::store::{file::FunctionsDir, name::ModuleName};

/// What serves a name.
pub struct Serving {
    pub file: String,
    /// `None` if it is larger than what may be put here.
    pub content: Option<Content>,
}

pub struct Content {
    pub digest: Digest,
    pub bytes: u64,
    pub etag: Etag,
}

/// # Errors
/// [`UploadError::Io`]
pub fn serving(
    opened: &Opened,
    name: &ModuleName,
    largest: u64,
    settings: Option<&[u8]>,
) -> Result<Option<Serving>, UploadError> {
    let step = failed("reading the function");
    for file in FunctionsDir::candidates(name) {
        let Some((module, stat)) = beneath::file(&opened.root, &file, beneath::SERVED).map_err(&step)? else {
            continue;
        };
        let content = if stat.st_size.unsigned_abs() <= largest {
            content(module, largest, settings).map_err(&step)?
        } else {
            None
        };
        return Ok(Some(Serving { file, content }));
    }
    Ok(None)
}

fn content(module: File, largest: u64, settings: Option<&[u8]>) -> std::io::Result<Option<Content>> {
    let read = Digest::of(module, largest)?;
    Ok(read.map(|(digest, bytes)| Content { digest, bytes, etag: Etag::of(&digest, settings) }))
}
