//! Lists of functions, and of versions of one.

use super::{
    UploadError, Uploads, beneath,
    change::Change,
    etag::{Conditions, Etag},
    history::History,
};
use crate::store::{
    file::{FunctionsDir, settings_file},
    name::ModuleName,
};

/// A list of more functions is cut off.
const MOST_LISTED: usize = 10_000;

/// A function, for who asks.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Described {
    pub name: String,
    /// In the functions directory.
    pub file: String,
    /// `None` if it is larger than what may be put here, as the following.
    pub etag: Option<String>,
    pub bytes: Option<u64>,
    pub sha256: Option<String>,
    /// Of its history.
    pub version: Option<u64>,
    pub settings: bool,
}

/// A function that is there, in a list of all.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Stored {
    pub name: String,
    pub file: String,
    pub bytes: u64,
    pub modified_unix: u64,
    pub settings: bool,
    pub versions: usize,
}

/// A version, in a list of all.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Listed {
    pub version: u64,
    pub etag: String,
    pub bytes: u64,
    pub settings: bool,
    pub created_unix: u64,
    pub serving: bool,
}

impl Uploads {
    pub(super) async fn versions(&self, name: &ModuleName) -> Result<Vec<Listed>, UploadError> {
        let place = self.doors[1].enter().await?;
        let (volume, name, bounds) = (self.volume.clone(), name.clone(), self.bounds);
        self.blocking(move || {
            let _place = place;
            let described = match Change::begin(volume.lock()?, &name, bounds, &Conditions::default())?.describe() {
                Ok(described) => Some(described),
                Err(UploadError::NoFunction { .. }) => None,
                Err(error) => return Err(error),
            };
            let history = History::open(&volume.open()?, &name)?;
            let history = match history {
                Some(history) => history,
                // Of what was not put here there are no versions until it is changed.
                None if described.is_some() => return Ok(Vec::new()),
                None => return Err(UploadError::NoFunction { name: name.to_string() }),
            };
            let etag = described.and_then(|described| described.etag);
            let serving = etag.as_deref().and_then(Etag::parse);
            let listed = history.versions.iter().map(|version| {
                let module = history.stat(version, &format!("{name}.wasm"));
                Listed {
                    version: version.number,
                    etag: version.etag.as_str().to_owned(),
                    bytes: module.map_or(0, |(_, bytes)| bytes),
                    settings: history.stat(version, &settings_file(name.as_str())).is_some(),
                    created_unix: module.map_or(0, |(created, _)| created),
                    serving: serving.as_ref() == Some(&version.etag),
                }
            });
            Ok(listed.collect())
        })
        .await
    }

    pub(super) async fn stored(&self) -> Result<Vec<Stored>, UploadError> {
        let place = self.doors[1].enter().await?;
        let volume = self.volume.clone();
        self.blocking(move || {
            let _place = place;
            let opened = volume.open()?;
            let stored = |name: String| {
                let name: ModuleName = name.parse().ok()?;
                let found = |file: String| Some((beneath::file(&opened.root, &file, beneath::SERVED).ok()??.1, file));
                let (stat, file) = FunctionsDir::candidates(&name).find_map(found)?;
                let history = History::open(&opened, &name).ok().flatten();
                Some(Stored {
                    file,
                    bytes: stat.st_size.unsigned_abs(),
                    modified_unix: stat.st_mtime.unsigned_abs(),
                    settings: found(settings_file(name.as_str())).is_some(),
                    versions: history.map_or(0, |history| history.versions.len()),
                    name: name.to_string(),
                })
            };
            Ok(opened.functions()?.into_iter().take(MOST_LISTED).filter_map(stored).collect())
        })
        .await
    }
}
