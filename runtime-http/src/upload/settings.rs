//! Settings that are put here, which must fit the module that they are of, and a module that must fit the settings that are there.

use std::io;

use super::{
    UploadError, Uploads,
    change::{Change, Done},
    door,
    etag::Conditions,
    list::Described,
};
use crate::{
    module_format::ProgramKind,
    store::{
        file::settings_file,
        loader::Remembered,
        name::ModuleName,
        settings::{BadSettings, FunctionSettings},
    },
};

/// How often somebody else may exchange the module meanwhile.
const TRIES: usize = 3;

fn utf8<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, BadSettings> {
    std::str::from_utf8(bytes)
        .map_err(|_| BadSettings::Unreadable { file: file.to_owned(), reason: "not UTF-8".into() })
}

/// # Errors
/// If a module of this kind cannot be run as the settings say that are there. Whatever else is wrong with these was wrong before.
pub(super) fn check_present(change: &Change<'_>, kind: ProgramKind) -> Result<(), UploadError> {
    let file = change.settings_file();
    let text = change.settings().and_then(|bytes| utf8(&file, bytes).ok());
    match text.and_then(|text| FunctionSettings::read(&file, text).ok()) {
        Some(settings) => Ok(settings.check_program(&file, kind)?),
        None => Ok(()),
    }
}

impl Uploads {
    /// # Errors
    /// [`UploadError`]; then the settings are as they were.
    pub(super) async fn put_settings(
        &self,
        name: &ModuleName,
        conditions: Conditions,
        text: Option<Vec<u8>>,
    ) -> Result<Done, UploadError> {
        let Some(text) = text else {
            return self.change(name, conditions, |change| change.put_settings(None)).await;
        };
        let file = settings_file(name.as_str());
        let settings = FunctionSettings::read(&file, utf8(&file, &text)?)?;
        // Nothing else that they say depends on the module.
        if settings.instance.reuse.is_none() {
            let store = self.store.clone();
            let put = move |change: Change<'_>| {
                store.check_settings(&file, utf8(&file, &text)?)?;
                change.put_settings(Some(text))
            };
            return self.change(name, conditions, put).await;
        }
        for _ in 0..TRIES {
            if let Some(done) = self.put_if_fitting(name, &conditions, &settings, &text).await? {
                return Ok(done);
            }
        }
        Err(UploadError::Busy)
    }

    /// `None` if the module was exchanged meanwhile.
    async fn put_if_fitting(
        &self,
        name: &ModuleName,
        conditions: &Conditions,
        settings: &FunctionSettings,
        text: &[u8],
    ) -> Result<Option<Done>, UploadError> {
        let file = settings_file(name.as_str());
        let (store, checked, own) = (self.store.clone(), text.to_owned(), file.clone());
        // Who will be refused compiles nothing first.
        let found = self.change(name, conditions.clone(), move |change| {
            store.check_settings(&own, utf8(&own, &checked)?)?;
            let is_there = change.settings() == Some(&checked[..]);
            let served =
                change.digest().map(|digest| Ok::<_, UploadError>((digest, change.describe()?))).transpose()?;
            Ok(Some(served).filter(|_| !is_there))
        });
        let Some(served) = found.await? else { return Ok(Some(Done::Unchanged)) };
        if let Some((_, described)) = &served
            && let Some(kind) = self.kind(described).await?
        {
            settings.check_program(&file, kind)?;
        }
        let (text, digest) = (text.to_owned(), served.map(|(digest, _)| digest));
        let put = move |change: Change<'_>| {
            let is_same = change.digest() == digest;
            is_same.then(|| change.put_settings(Some(text))).transpose()
        };
        self.change(name, conditions.clone(), put).await
    }

    /// What the module is that serves; `None` if no settings would make it run.
    async fn kind(&self, described: &Described) -> Result<Option<ProgramKind>, UploadError> {
        let check = door::place(&self.checks).await?;
        let (store, directory) = (self.store.clone(), self.volume.functions());
        let (file, bytes) = (described.file.clone(), described.bytes.unwrap_or(0));
        let checked = self.runtime.spawn(async move {
            // What compiles goes on when its client leaves, and so does what bounds it.
            let _check = check;
            store.check(&directory, &file, bytes).await
        });
        let failed = |error| UploadError::Io { step: "checking the module", source: io::Error::other(error) };
        match checked.await.map_err(failed)? {
            Ok(kind) => Ok(Some(kind)),
            Err(error) if error.remembered() == Remembered::UntilItChanges => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
