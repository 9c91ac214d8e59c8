//! A body on its way to disk: a piece of it is in memory at a time.

use std::{fs::File, io::Write, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body;

use super::{
    Staged, UploadError, Uploads, beneath,
    directory_quota::Claim,
    etag::{Digest, Hasher},
    refuse_native,
    volume::failed,
};
use crate::exchange::request_body::{BodyError, RequestBody};

/// From the first byte of a body to its last.
pub const LONGEST: Duration = Duration::from_secs(30 * 60);

/// What is written at once.
const PIECE: usize = 256 << 10;

/// A module that is on disk.
pub struct Received {
    pub staging: Staged,
    pub claim: Claim,
    pub digest: Digest,
    pub bytes: u64,
}

/// Where its pieces go.
struct Sink {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Sink {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        self.file.write_all(piece)
    }
}

/// The rest of a body that says how long it is must fit.
pub fn check_length(body: &RequestBody, limit: u64) -> Result<(), UploadError> {
    if body.size_hint().lower() > limit {
        return Err(BodyError::TooLarge { limit }.into());
    }
    Ok(())
}

/// The whole of a small body.
///
/// # Errors
/// [`BodyError`]
pub async fn whole(mut body: RequestBody, limit: u64) -> Result<Vec<u8>, UploadError> {
    check_length(&body, limit)?;
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if (whole.len() + data.len()) as u64 > limit {
                return Err(BodyError::TooLarge { limit }.into());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

impl Uploads {
    pub(super) async fn receive(
        &self,
        staging: Staged,
        mut claim: Claim,
        file: &str,
        mut body: RequestBody,
    ) -> Result<Received, UploadError> {
        let name = file.to_owned();
        let place = staging.place.clone();
        let step = "writing the module";
        let (staging, mut sink) = self
            .blocking(move || {
                let Some(files) = &staging.files else { return Err(UploadError::Busy) };
                let file = beneath::create(&files.version, &name).map_err(failed(step))?;
                Ok((staging, Sink { file, hasher: Hasher::default(), bytes: 0 }))
            })
            .await?;
        loop {
            let piece = next_piece(&mut body).await?;
            if piece.is_empty() {
                break;
            }
            claim.add(piece.len() as u64)?;
            self.metrics.uploads.bytes.inc_by(piece.len() as u64);
            if sink.bytes == 0 {
                refuse_native(file, &piece)?;
            }
            let held = place.clone();
            sink = self
                .blocking(move || {
                    let _held = held;
                    sink.write(&piece).map_err(failed(step))?;
                    Ok(sink)
                })
                .await?;
        }
        let Sink { file, hasher, bytes } = sink;
        // Closed before it is checked: what is open for writing is not read.
        self.blocking(move || {
            let _held = place;
            file.sync_all().map_err(failed(step))
        })
        .await?;
        Ok(Received { staging, claim, digest: hasher.end(), bytes })
    }
}

/// Empty at the end.
async fn next_piece(body: &mut RequestBody) -> Result<Bytes, UploadError> {
    let mut piece = BytesMut::new();
    while piece.len() < PIECE {
        let Some(frame) = body.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            piece.extend_from_slice(&data);
        }
    }
    Ok(piece.freeze())
}
