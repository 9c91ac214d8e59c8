//! The versions of one function, by number: the newest is the one that was put here, or gone back to, last.

use std::{io, os::fd::OwnedFd};

use rustix::fs::{self, AtFlags};

use super::{
    UploadError, beneath,
    etag::Etag,
    volume::{Opened, Staging, VERSION, failed},
};
use crate::store::name::ModuleName;

/// Of the same function.
pub struct History {
    directory: OwnedFd,
    /// The newest first.
    pub versions: Vec<Version>,
}

/// A directory with a module and settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub number: u64,
    pub etag: Etag,
}

/// A number with more digits is none of a version.
const DIGITS: usize = 8;
const MOST: u64 = 99_999_999;

impl Version {
    fn parse(name: &str) -> Option<Version> {
        let (number, etag) = name.split_once('-')?;
        let is_number = number.len() == DIGITS && number.bytes().all(|byte| byte.is_ascii_digit());
        Some(Version { number: is_number.then(|| number.parse().ok())??, etag: Etag::parse(etag)? })
    }

    fn directory(&self) -> String {
        format!("{:0DIGITS$}-{}", self.number, self.etag.as_str())
    }
}

impl History {
    /// What there is of `name`; nothing, if there was never one.
    ///
    /// # Errors
    /// [`UploadError::Io`]
    pub fn open(opened: &Opened, name: &ModuleName) -> Result<Option<History>, UploadError> {
        match beneath::directory(&opened.history, name.as_str()) {
            Ok(directory) => History::read(directory).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("opening the history")(error)),
        }
    }

    /// The same, made if it is not there.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn make(opened: &Opened, name: &ModuleName) -> Result<History, UploadError> {
        let directory = beneath::made(&opened.history, name.as_str()).map_err(failed("making the history"))?;
        History::read(directory)
    }

    fn read(directory: OwnedFd) -> Result<History, UploadError> {
        let names = beneath::names(&directory).map_err(failed("reading the history"))?;
        let mut versions: Vec<Version> = names.iter().filter_map(|name| Version::parse(name)).collect();
        versions.sort_unstable_by_key(|version| std::cmp::Reverse(version.number));
        Ok(History { directory, versions })
    }

    pub fn of_content(&self, etag: &Etag) -> Option<&Version> {
        self.versions.iter().find(|version| version.etag == *etag)
    }

    /// # Errors
    /// [`UploadError::Io`]
    pub fn directory(&self, version: &Version) -> Result<OwnedFd, UploadError> {
        beneath::directory(&self.directory, &version.directory()).map_err(failed("opening a version"))
    }

    /// When it was put here, and whether it has such a file, of how many bytes.
    pub fn stat(&self, version: &Version, file: &str) -> Option<(u64, u64)> {
        let directory = self.directory(version).ok()?;
        let stat = fs::statat(&directory, file, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let made = fs::fstat(&directory).ok()?.st_mtime;
        Some((made.unsigned_abs(), stat.st_size.unsigned_abs()))
    }

    fn next(&self, etag: &Etag) -> Result<Version, UploadError> {
        let number = self.versions.first().map_or(0, |newest| newest.number) + 1;
        if number > MOST {
            return Err(UploadError::Conflict { what: "its history has no numbers left; delete its versions" });
        }
        Ok(Version { number, etag: etag.clone() })
    }

    /// What has arrived becomes the newest version, the only one with that content.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn insert(&mut self, staging: &Staging, etag: &Etag) -> Result<(), UploadError> {
        let version = self.next(etag)?;
        fs::renameat(&staging.own, VERSION, &self.directory, version.directory())
            .map_err(failed("adding to the history"))?;
        self.became_newest(version);
        Ok(())
    }

    /// An earlier version becomes the newest.
    ///
    /// # Errors
    /// [`UploadError`]
    pub fn renew(&mut self, version: &Version) -> Result<Version, UploadError> {
        if self.versions.first() == Some(version) {
            return Ok(version.clone());
        }
        let next = self.next(&version.etag)?;
        fs::renameat(&self.directory, version.directory(), &self.directory, next.directory())
            .map_err(failed("changing the history"))?;
        self.versions.retain(|other| other != version);
        self.became_newest(next.clone());
        Ok(next)
    }

    fn became_newest(&mut self, version: Version) {
        let (same, others) = self.versions.drain(..).partition(|other: &Version| other.etag == version.etag);
        self.versions = others;
        self.remove_all(same);
        self.versions.insert(0, version);
        let _ = fs::fsync(&self.directory);
    }

    /// Removes all but the newest `most`.
    pub fn keep(&mut self, most: usize) {
        let rest = self.versions.split_off(most.min(self.versions.len()));
        self.remove_all(rest);
    }

    /// Removes all but the one with that content.
    pub fn keep_only(&mut self, etag: Option<&Etag>) {
        let (rest, kept) = self.versions.drain(..).partition(|version: &Version| Some(&version.etag) != etag);
        self.versions = kept;
        self.remove_all(rest);
    }

    fn remove_all(&self, versions: Vec<Version>) {
        for version in versions {
            if let Err(error) = beneath::remove(&self.directory, &version.directory()) {
                tracing::warn!("version {} cannot be removed: {error}", version.directory());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_their_names() {
        let name = format!("00000012-{}", "0a".repeat(16));
        let version = Version::parse(&name).unwrap();
        assert_eq!((version.number, version.directory()), (12, name));
        for bad in ["12-0a", "00000012-", "", "-", "0000001x-", &format!("+0000012-{}", "0a".repeat(16))] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }
}
