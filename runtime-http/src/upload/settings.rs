//! Settings that are put here, which must fit the module that they are of, and a module that must fit the settings that are there.

use super::{
    UploadError, Uploads,
    change::{Change, Done},
    door,
    etag::{Conditions, Digest},
};
use crate::{
    sandbox::ProgramKind,
    store::{
        file::settings_file,
        name::ModuleName,
        settings::{BadSettings, FunctionSettings},
    },
};

/// The module that serves, as settings depend on it.
type Served = Option<(Digest, Option<ProgramKind>)>;

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
        let file = settings_file(name.as_str());
        let asked = match &text {
            Some(bytes) => Some(FunctionSettings::read(&file, utf8(&file, bytes)?)?),
            None => None,
        };
        // Nothing else that they say depends on the module.
        let asked = asked.filter(|settings| settings.instance.reuse.is_some());
        let served = match &asked {
            Some(_) => self.served(name).await?,
            None => None,
        };
        let store = self.store.clone();
        self.change(name, conditions, move |change| {
            if let Some(bytes) = &text {
                store.check_settings(&file, utf8(&file, bytes)?)?;
            }
            if let Some(settings) = asked {
                if change.digest() != served.as_ref().map(|(digest, _)| *digest) {
                    let what = "the function was changed at the same time; try again";
                    return Err(UploadError::Conflict { what });
                }
                if let Some((_, Some(kind))) = served {
                    settings.check_program(&file, kind)?;
                }
            }
            change.put_settings(text)
        })
        .await
    }

    /// What serves now, and its kind, unless it could not be run either.
    async fn served(&self, name: &ModuleName) -> Result<Served, UploadError> {
        let found = self
            .change(name, Conditions::default(), |change| {
                let digest = change.digest();
                digest.map(|digest| Ok((digest, change.describe()?))).transpose()
            })
            .await?;
        let Some((digest, described)) = found else { return Ok(None) };
        let _check = door::place(&self.checks).await?;
        let kind = self.store.check(&self.volume.functions(), &described.file, described.bytes.unwrap_or(0)).await;
        Ok(Some((digest, kind.ok())))
    }
}
