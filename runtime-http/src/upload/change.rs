//! Changes of one function, each while nobody else changes any: what served before is in the history first, then files are replaced by renaming.

use std::os::fd::AsFd;

use rustix::{
    fs::{self, AtFlags},
    io::Errno,
};

use super::{
    UploadError, beneath,
    etag::{Conditions, Digest, Etag},
    history::{History, Version},
    list::Described,
    serving::{Content, Serving, serving},
    volume::{Locked, Staging, failed},
};
use crate::store::{
    LARGEST_SETTINGS,
    file::{FunctionsDir, settings_file},
    name::ModuleName,
};

/// What a change may make of a function.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a module.
    pub module: u64,
    /// Functions in the directory.
    pub functions: usize,
    /// Versions that are kept.
    pub versions: usize,
}

/// The function, as it is now.
pub struct Change<'a> {
    volume: Locked,
    name: &'a ModuleName,
    bounds: Bounds,
    serving: Option<Serving>,
    settings: Option<Vec<u8>>,
}

/// What a change has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    Created,
    Replaced,
    Unchanged,
}

impl<'a> Change<'a> {
    /// # Errors
    /// [`UploadError`], if what there is does not meet the conditions.
    pub fn begin(
        volume: Locked,
        name: &'a ModuleName,
        bounds: Bounds,
        conditions: &Conditions,
    ) -> Result<Change<'a>, UploadError> {
        let step = failed("reading the settings");
        let settings =
            match beneath::file(&volume.root, &settings_file(name.as_str()), beneath::SERVED).map_err(&step)? {
                Some((file, _)) => beneath::content(&file, LARGEST_SETTINGS).map_err(&step)?,
                None => None,
            };
        let serving = serving(&volume, name, bounds.module, settings.as_deref())?;
        let there = serving.as_ref().map(|serving| serving.content.as_ref().map(|content| &content.etag));
        if !conditions.hold(there) {
            let etag = there.flatten().map(|etag| etag.as_str().to_owned());
            return Err(UploadError::Precondition { name: name.to_string(), etag });
        }
        Ok(Change { volume, name, bounds, serving, settings })
    }

    pub fn settings(&self) -> Option<&[u8]> {
        self.settings.as_deref()
    }

    fn module_file(&self) -> String {
        format!("{}.wasm", self.name)
    }

    pub fn settings_file(&self) -> String {
        settings_file(self.name.as_str())
    }

    fn content(&self) -> Option<&Content> {
        self.serving.as_ref()?.content.as_ref()
    }

    /// Of the module that serves.
    pub fn digest(&self) -> Option<Digest> {
        self.content().map(|content| content.digest)
    }

    pub fn missing(&self) -> UploadError {
        UploadError::NoFunction { name: self.name.to_string() }
    }

    pub fn describe(&self) -> Result<Described, UploadError> {
        let serving = self.serving.as_ref().ok_or_else(|| self.missing())?;
        let content = serving.content.as_ref();
        let history = History::open(&self.volume, self.name)?;
        let version = content.and_then(|content| history.as_ref()?.of_content(&content.etag));
        Ok(Described {
            name: self.name.to_string(),
            file: serving.file.clone(),
            etag: content.map(|content| content.etag.as_str().to_owned()),
            bytes: content.map(|content| content.bytes),
            sha256: content.map(|content| content.digest.to_string()),
            version: version.map(|version| version.number),
            settings: self.settings.is_some(),
        })
    }

    /// A new function must find a place.
    fn check_number(&self) -> Result<(), UploadError> {
        if self.serving.is_none() && self.settings.is_none() && self.volume.functions()?.len() >= self.bounds.functions
        {
            return Err(UploadError::TooMany { most: self.bounds.functions });
        }
        Ok(())
    }

    /// What serves now is in the history, if it can be.
    fn remember(&self, history: &mut History) -> Result<(), UploadError> {
        let (Some(serving), Some(content)) = (&self.serving, self.content()) else { return Ok(()) };
        if history.of_content(&content.etag).is_some() {
            return Ok(());
        }
        let step = failed("keeping what somebody else has put here");
        // A copy: whoever put it here may write to it still.
        let found = beneath::file(&self.volume.root, &serving.file, beneath::SERVED).map_err(&step)?;
        let Some((module, _)) = found else { return Ok(()) };
        let staging = self.volume.stage()?;
        beneath::copy(&module, &staging.version, &self.module_file(), self.bounds.module).map_err(&step)?;
        self.write_settings(&staging, self.settings.as_deref())?;
        history.insert(&staging, &content.etag)
    }

    fn write_settings(&self, staging: &Staging, settings: Option<&[u8]>) -> Result<(), UploadError> {
        let step = failed("writing the settings");
        if let Some(settings) = settings {
            beneath::write(&staging.version, &self.settings_file(), settings).map_err(&step)?;
        }
        fs::fsync(&staging.version).map_err(|errno| step(errno.into()))
    }

    /// The file that has arrived, and was found to be a function, serves from now on.
    ///
    /// # Errors
    /// [`UploadError`]; then what served before still does.
    pub fn put_module(
        mut self,
        staging: &Staging,
        digest: Digest,
        bytes: u64,
    ) -> Result<(Done, Described), UploadError> {
        let etag = Etag::of(&digest, self.settings.as_deref());
        if self.content().is_some_and(|content| content.etag == etag) {
            return Ok((Done::Unchanged, self.describe()?));
        }
        self.check_number()?;
        let mut history = History::make(&self.volume, self.name)?;
        self.remember(&mut history)?;
        self.write_settings(staging, self.settings.as_deref())?;
        let own = self.module_file();
        let file = self.serving.as_ref().map_or(own.clone(), |serving| serving.file.clone());
        self.replace(&staging.version, staging, &[(&own, &file)])?;
        let done = if self.serving.is_some() { Done::Replaced } else { Done::Created };
        self.added(&mut history, staging, &etag);
        self.serving = Some(Serving { file, content: Some(Content { digest, bytes, etag }) });
        Ok((done, self.describe()?))
    }

    /// Other settings, or none.
    ///
    /// # Errors
    /// [`UploadError`]; then what served before still does.
    pub fn put_settings(mut self, settings: Option<Vec<u8>>) -> Result<Done, UploadError> {
        if self.settings == settings {
            return Ok(Done::Unchanged);
        }
        self.check_number()?;
        let staging = self.volume.stage()?;
        let done = if self.settings.is_some() { Done::Replaced } else { Done::Created };
        if let Some(digest) = self.digest() {
            let mut history = History::make(&self.volume, self.name)?;
            self.remember(&mut history)?;
            let etag = Etag::of(&digest, settings.as_deref());
            if let Some(version) = self.content().and_then(|content| history.of_content(&content.etag)) {
                let (file, version) = (self.module_file(), history.directory(version)?);
                beneath::link(&version, &file, &staging.version, &file, self.bounds.module)
                    .map_err(failed("adding to the history"))?;
            }
            self.serve_settings(&staging, settings.as_deref())?;
            self.added(&mut history, &staging, &etag);
        } else {
            self.serve_settings(&staging, settings.as_deref())?;
        }
        self.settings = settings;
        Ok(done)
    }

    /// Serves an earlier version, by default the one before, and what was deleted if nothing serves.
    ///
    /// # Errors
    /// [`UploadError`]; then what served before still does.
    pub fn roll_back(mut self, to: Option<u64>) -> Result<Described, UploadError> {
        let no_version = |version| UploadError::NoVersion { name: self.name.to_string(), version };
        self.check_number()?;
        let mut history = History::open(&self.volume, self.name)?.ok_or_else(|| no_version(to))?;
        self.remember(&mut history)?;
        let is_served = |version: &Version| self.content().is_some_and(|content| content.etag == version.etag);
        let target = match to {
            Some(number) => history.versions.iter().find(|version| version.number == number),
            None => history.versions.iter().find(|version| !is_served(version)),
        };
        let target = target.cloned().ok_or_else(|| no_version(to))?;
        let (content, settings) = self.verified(&history, &target)?;
        let staging = self.volume.stage()?;
        let version = history.directory(&target)?;
        let (own, own_settings) = (self.module_file(), self.settings_file());
        let file = self.serving.as_ref().map_or(&own, |serving| &serving.file);
        if settings.is_some() {
            self.replace(&version, &staging, &[(&own_settings, &own_settings), (&own, file)])?;
        } else {
            self.replace(&version, &staging, &[(&own, file)])?;
            self.remove_settings()?;
        }
        history.renew(&target)?;
        history.keep(self.bounds.versions);
        let file = self.serving.as_ref().map_or_else(|| self.module_file(), |serving| serving.file.clone());
        self.serving = Some(Serving { file, content: Some(content) });
        self.settings = settings;
        self.describe()
    }

    /// What is in a version, if that is what was put there.
    fn verified(&self, history: &History, version: &Version) -> Result<(Content, Option<Vec<u8>>), UploadError> {
        let step = failed("reading a version");
        let directory = history.directory(version)?;
        let settings = match beneath::file(&directory, &self.settings_file(), beneath::OWN).map_err(&step)? {
            Some((file, _)) => beneath::content(&file, LARGEST_SETTINGS).map_err(&step)?,
            None => None,
        };
        let module = beneath::file(&directory, &self.module_file(), beneath::OWN).map_err(&step)?;
        let read = module.map(|(file, _)| Digest::of(file, self.bounds.module)).transpose().map_err(&step)?.flatten();
        let content =
            read.map(|(digest, bytes)| Content { digest, bytes, etag: Etag::of(&digest, settings.as_deref()) });
        let content = content.filter(|content| content.etag == version.etag);
        let what = "somebody has changed that version in the history; put the function here anew";
        Ok((content.ok_or(UploadError::Conflict { what })?, settings))
    }

    /// Nothing serves the name any more; the history stays.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn delete(self) -> Result<(), UploadError> {
        if self.serving.is_none() {
            return Err(self.missing());
        }
        let mut history = History::make(&self.volume, self.name)?;
        self.remember(&mut history)?;
        // The module first: it must not serve without its settings.
        for file in FunctionsDir::candidates(self.name).chain([self.settings_file()]) {
            match fs::unlinkat(&self.volume.root, &file, AtFlags::empty()) {
                // A directory serves nothing.
                Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(failed("removing the function")(errno)),
            }
        }
        history.keep(self.bounds.versions);
        // Who makes functions and deletes them leaves a bounded number behind.
        if self.volume.histories()? > 2 * self.bounds.functions {
            tracing::warn!(function = %self.name, "its history goes with it: there are too many of deleted functions");
            beneath::remove(&self.volume.history, self.name.as_str()).map_err(failed("removing the history"))?;
        }
        fs::fsync(&self.volume.root).map_err(failed("removing the function"))
    }

    /// Forgets all versions but what serves.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn forget(self) -> Result<(), UploadError> {
        let no_version = || UploadError::NoVersion { name: self.name.to_string(), version: None };
        let mut history = History::open(&self.volume, self.name)?.ok_or_else(no_version)?;
        history.keep_only(self.content().map(|content| &content.etag));
        if history.versions.is_empty() {
            beneath::remove(&self.volume.history, self.name.as_str()).map_err(failed("removing the history"))?;
        }
        Ok(())
    }

    /// The history has what serves already: if it cannot, the next change adds it.
    fn added(&self, history: &mut History, staging: &Staging, etag: &Etag) {
        if let Err(error) = history.insert(staging, etag) {
            tracing::warn!(function = %self.name, "not in the history: {error}");
        }
        history.keep(self.bounds.versions);
    }

    fn serve_settings(&self, staging: &Staging, settings: Option<&[u8]>) -> Result<(), UploadError> {
        self.write_settings(staging, settings)?;
        if settings.is_none() {
            return self.remove_settings();
        }
        let file = self.settings_file();
        self.replace(&staging.version, staging, &[(&file, &file)])
    }

    fn remove_settings(&self) -> Result<(), UploadError> {
        match fs::unlinkat(&self.volume.root, self.settings_file(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("removing the settings")(errno)),
        }
    }

    /// Files of a version take the place of those that serve; what can fail comes first.
    fn replace(&self, from: impl AsFd, staging: &Staging, files: &[(&str, &str)]) -> Result<(), UploadError> {
        let step = "replacing the function";
        let new = |index: usize| format!("new-{index}");
        for (index, (name, _)) in files.iter().enumerate() {
            beneath::link(&from, name, &staging.own, &new(index), self.bounds.module).map_err(failed(step))?;
        }
        for (index, (_, file)) in files.iter().enumerate() {
            match fs::renameat(&staging.own, new(index), &self.volume.root, *file) {
                Ok(()) => {}
                Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                    let what = "a directory has the name of the function's file; remove that";
                    return Err(UploadError::Conflict { what });
                }
                Err(errno) => return Err(failed(step)(errno)),
            }
        }
        fs::fsync(&self.volume.root).map_err(failed(step))
    }
}
