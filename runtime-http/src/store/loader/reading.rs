//! Reading a function's files, as far as there is room for all that are read at once.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::{LARGEST_SETTINGS, LoadError, Loader, Settings, blocking, kibibytes};
use crate::{
    artifacts::file_identity::FileIdentity,
    store::{
        compiler::Prepared,
        file::{FileError, FileVersion, FunctionsDir, settings_file},
        settings::{BadSettings, FunctionSettings, GrantedSettings},
    },
};

/// A function's files, read, and what holds room for the module meanwhile.
pub struct Files {
    pub(super) prepared: Prepared,
    pub(super) version: FileVersion,
    pub(super) settings: GrantedSettings,
    pub(super) reading: OwnedSemaphorePermit,
}

/// What reading a module takes of what all loads share.
pub struct Room {
    /// For its thread.
    pub thread: OwnedSemaphorePermit,
    /// For its bytes.
    pub bytes: OwnedSemaphorePermit,
}

impl Loader {
    /// Reads the files, as soon as there is room for a module of `size` bytes.
    pub(super) async fn read(
        self: &Arc<Self>,
        directory: &FunctionsDir,
        file: &str,
        size: u64,
        settings: Settings,
    ) -> Result<Files, LoadError> {
        let room = self.room(size).await;
        let (loader, directory, name) = (self.clone(), directory.clone(), file.to_owned());
        let prepare = move || {
            let Room { thread, bytes } = room;
            let files = loader.prepare(&directory, &name, size, settings, bytes);
            drop(thread);
            files
        };
        blocking(file, prepare).await?
    }

    /// Room for a module of `size` bytes.
    pub async fn room(&self, size: u64) -> Room {
        let thread = self.loads.clone().acquire_owned().await.expect("the semaphore is never closed");
        let bytes = self.reading.clone().acquire_many_owned(self.share(size)).await;
        Room { thread, bytes: bytes.expect("the semaphore is never closed") }
    }

    /// KiB. One that is larger than the budget is read alone.
    fn share(&self, size: u64) -> u32 {
        kibibytes(size).min(self.reading_kibibytes)
    }

    /// Reads the files that were found, for whose bytes there is `room`. Blocks.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn files(&self, found: &FileVersion, room: OwnedSemaphorePermit) -> Result<Files, LoadError> {
        self.prepare(&self.directory, &found.file, found.module.size(), Settings::Read, room)
    }

    /// Blocks.
    fn prepare(
        &self,
        directory: &FunctionsDir,
        file: &str,
        size: u64,
        settings: Settings,
        reading: OwnedSemaphorePermit,
    ) -> Result<Files, LoadError> {
        let settings_file = settings_file(file);
        let (settings, settings_identity) = match directory.read(&settings_file, LARGEST_SETTINGS) {
            _ if settings == Settings::Ignored => (GrantedSettings::default(), None),
            Ok((bytes, identity)) => {
                let text = String::from_utf8(bytes)
                    .map_err(|_| BadSettings::Unreadable { file: settings_file.clone(), reason: "not UTF-8".into() })?;
                (FunctionSettings::parse(&settings_file, &text, self.defaults.caps, &self.grants)?, Some(identity))
            }
            Err(FileError::NotFound { .. }) => (GrantedSettings::default(), None),
            Err(error) => return Err(error.into()),
        };
        let limit = self.bounds.module.min(size);
        let grown = |error| match error {
            // It grew since it was found, and there is room for what it was.
            FileError::TooLarge { file, .. } if size <= self.bounds.module => FileError::Unsettled { file },
            error => error,
        };
        let recalled = |module: FileIdentity| Some((self.compiler.recall(&module)?, module));
        let settled = directory.settled(file, limit).map_err(grown)?;
        let (prepared, module) = match settled.and_then(recalled) {
            Some((code, module)) => (Prepared::Ready(code), module),
            None => {
                let (bytes, module) = directory.read(file, limit).map_err(grown)?;
                let prepared = self.compiler.prepare(bytes, settled.as_ref().filter(|settled| **settled == module));
                (prepared.map_err(|source| LoadError::Compile { file: file.to_owned(), source })?, module)
            }
        };
        let version = FileVersion { file: file.to_owned(), module, settings: settings_identity };
        Ok(Files { prepared, version, settings, reading })
    }
}
