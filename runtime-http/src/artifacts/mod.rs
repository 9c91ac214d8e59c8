//! The AOT cache on disk: native code, found by what it was compiled from and for which engine.
//!
//! Native code that an attacker wrote runs with all rights of the box, so nobody else may write the directory (owner and mode are
//! checked), and a file is checked through the same descriptor that is then mapped. In a box's own cache each file carries a MAC under a
//! key that only this user can read. The node's is read by boxes of all users, so there is no secret: a read-only mount protects it, and a
//! digest shows damage. Writing is atomic: a file without a name, fsync, then its name.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    hash::BuildHasher,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, CWD, OFlags};

pub use self::cache_directory::CacheError;
use self::checked::CheckedImages;
use self::{
    cache_directory::{check_directory, check_mapped_directory, is_root},
    file_identity::FileIdentity,
    mapping::Mapping,
    room::Room,
};

pub mod cache_directory;
mod checked;
pub mod file_identity;
pub mod mapping;
mod room;

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const MAC_BYTES: u64 = 32;
const ENDING: &str = "cwasm";
/// A file that was used is used for so long: its time of last use is not written each time.
const USED: Duration = Duration::from_secs(3600);

/// What a compiled file was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArtifactKey {
    content: blake3::Hash,
    compatibility: u64,
}

impl ArtifactKey {
    /// `compatibility` is [`crate::engine::Engines::compatibility_key`]'s.
    pub fn new(content: &[u8], compatibility: u64) -> Self {
        ArtifactKey { content: blake3::hash(content), compatibility }
    }

    /// A number that no two modules share by chance.
    pub fn number(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.content.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    const BYTES: usize = blake3::OUT_LEN + size_of::<u64>();

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (content, compatibility) = bytes.split_at_mut(blake3::OUT_LEN);
        content.copy_from_slice(self.content.as_bytes());
        compatibility.copy_from_slice(&self.compatibility.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let content = blake3::Hash::from_bytes(std::array::from_fn(|index| bytes[index]));
        let compatibility = u64::from_le_bytes(std::array::from_fn(|index| bytes[blake3::OUT_LEN + index]));
        ArtifactKey { content, compatibility }
    }

    fn file_name(&self) -> String {
        format!("{}-{:016x}.{ENDING}", self.content.to_hex(), self.compatibility)
    }
}

/// Whose the cache is, and what this process may do with it.
enum Role {
    /// This user's: read and written, each file with a MAC under this key.
    Own { key: [u8; KEY_BYTES], checked: Option<CheckedImages> },
    /// The node's, on the host, where it is filled.
    Node,
    /// The node's, as boxes see it: read-only.
    Mapped,
}

/// The directory.
pub struct ArtifactCache {
    directory: PathBuf,
    role: Role,
    room: Room,
}

/// A checked file: its content is exactly what was once written for that key, by this user or by the node's root. The MAC or digest is
/// behind the code, where no loader looks.
pub struct Artifact {
    pub file: File,
    /// What it was before it was checked, if it can be known again by that.
    identity: Option<FileIdentity>,
}

impl ArtifactCache {
    /// Opens or makes the directory, with mode 0700, and its key.
    ///
    /// # Errors
    /// [`CacheError::Unsafe`] if others could write it, [`CacheError::Io`] if it cannot be made or written.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, CacheError> {
        let io = |source| CacheError::Io { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
        check_directory(directory)?;
        let key = read_or_make_key(directory).map_err(io)?;
        let role = Role::Own { key, checked: CheckedImages::open(directory, &key).map_err(io)? };
        let cache = ArtifactCache { directory: directory.to_owned(), role, room: Room::new(limit) };
        cache.remove_leftovers().map_err(io)?;
        Ok(cache)
    }

    /// Opens the node's cache on the host, to be filled; the directory must be there.
    ///
    /// # Errors
    /// As [`ArtifactCache::open`].
    pub fn open_node(directory: &Path, limit: u64) -> Result<Self, CacheError> {
        check_directory(directory)?;
        let cache = ArtifactCache { directory: directory.to_owned(), role: Role::Node, room: Room::new(limit) };
        cache.remove_leftovers().map_err(|source| CacheError::Io { path: directory.to_owned(), source })?;
        Ok(cache)
    }

    /// Opens the node's cache in a box.
    ///
    /// # Errors
    /// [`CacheError::UnsafeNode`] if the box could write it, or others.
    pub fn open_mapped(directory: &Path) -> Result<Self, CacheError> {
        check_mapped_directory(directory)?;
        Ok(ArtifactCache { directory: directory.to_owned(), role: Role::Mapped, room: Room::new(0) })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file for `key`, if it is there and its MAC or digest is right. A file that is not right is reported, and removed.
    pub fn get(&self, key: &ArtifactKey) -> Option<Artifact> {
        let path = self.directory.join(key.file_name());
        let file = File::open(&path).ok()?;
        let identity = FileIdentity::of_open(&file).ok()?;
        if self.is_unused(&identity) {
            let _ = file.set_modified(SystemTime::now());
        }
        let identity = identity.is_telling(&file).then_some(identity);
        match (self.check(key, &file), &self.role) {
            (Ok(()), _) => Some(Artifact { file, identity }),
            (Err(reason), Role::Mapped) => {
                tracing::warn!(path = %path.display(), "refused a file of the node's cache: {reason}");
                None
            }
            (Err(reason), Role::Own { .. } | Role::Node) => {
                tracing::warn!(path = %path.display(), "removed a file of the AOT cache: {reason}");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Whether its time of last use, for [`Room`], is to be set.
    fn is_unused(&self, identity: &FileIdentity) -> bool {
        !matches!(self.role, Role::Mapped) && identity.age(SystemTime::now()).is_some_and(|age| age > USED)
    }

    /// The image of `module`, if neither has changed since [`Self::remember`].
    pub fn recall(&self, module: &FileIdentity, compatibility: u64) -> Option<Artifact> {
        let Role::Own { checked: Some(checked), .. } = &self.role else { return None };
        let (key, identity) = checked.find(module).filter(|(key, _)| key.compatibility == compatibility)?;
        let file = File::open(self.directory.join(key.file_name())).ok()?;
        let is_same = FileIdentity::of_open(&file).is_ok_and(|now| now == identity);
        (is_same && !self.is_unused(&identity)).then_some(Artifact { file, identity: Some(identity) })
    }

    /// That `module` has this key, and `artifact` is its image, which was checked: for whoever comes next, also after a restart of the box.
    pub fn remember(&self, module: &FileIdentity, key: &ArtifactKey, artifact: &Artifact) {
        let Role::Own { checked: Some(checked), .. } = &self.role else { return };
        if let Some(identity) = &artifact.identity
            && FileIdentity::of_open(&artifact.file).is_ok_and(|now| now == *identity)
            && let Err(error) = checked.put(module, key, identity)
        {
            tracing::debug!("cannot write down what was checked: {error}");
        }
    }

    fn check(&self, key: &ArtifactKey, file: &File) -> Result<(), String> {
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        let owned = match self.role {
            Role::Own { .. } | Role::Node => metadata.uid() == rustix::process::geteuid().as_raw(),
            Role::Mapped => is_root(metadata.uid()),
        };
        if !owned || metadata.mode() & 0o022 != 0 || !metadata.is_file() {
            return Err("its owner or mode is wrong".into());
        }
        let code_bytes = metadata.len().checked_sub(MAC_BYTES).ok_or("it is too short")?;
        let mut hasher = self.hasher(key);
        let code = Mapping::new(file, code_bytes).map_err(|error| error.to_string())?;
        hasher.update(&code);
        let mut mac = [0; MAC_BYTES as usize];
        file.read_exact_at(&mut mac, code_bytes).map_err(|error| error.to_string())?;
        // `blake3::Hash` compares in constant time.
        match (hasher.finalize() == blake3::Hash::from_bytes(mac), &self.role) {
            (true, _) => Ok(()),
            (false, Role::Own { .. }) => Err("its MAC is wrong".into()),
            (false, Role::Node | Role::Mapped) => Err("its digest is wrong".into()),
        }
    }

    /// MAC and digest cover the file's name too: one entry cannot stand in for another.
    fn hasher(&self, key: &ArtifactKey) -> blake3::Hasher {
        let mut hasher = match &self.role {
            Role::Own { key, .. } => blake3::Hasher::new_keyed(key),
            Role::Node | Role::Mapped => blake3::Hasher::new(),
        };
        hasher.update(key.file_name().as_bytes());
        hasher
    }

    /// Stores `code` under `key`, and makes room for it.
    ///
    /// # Errors
    /// If it cannot be written; nothing half-written is left.
    pub fn put(&self, key: &ArtifactKey, code: &[u8]) -> io::Result<()> {
        let mode = match self.role {
            Role::Own { .. } => 0o400,
            Role::Node => 0o444,
            Role::Mapped => return Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        };
        let mut hasher = self.hasher(key);
        hasher.update(code);
        self.room.take(&self.directory, code.len() as u64 + MAC_BYTES)?;
        publish(&self.directory, &key.file_name(), &[code, hasher.finalize().as_bytes()], mode)
    }

    /// Temporary files of a process that was killed while it wrote; old enough that no living one still writes them.
    fn remove_leftovers(&self) -> io::Result<()> {
        const OLD: std::time::Duration = std::time::Duration::from_secs(600);
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let old = || {
                let modified = fs::symlink_metadata(&path).and_then(|metadata| metadata.modified());
                modified.ok().and_then(|modified| modified.elapsed().ok()).is_some_and(|age| age > OLD)
            };
            if path.extension().is_some_and(|ending| ending == "tmp") && old() {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

fn read_or_make_key(directory: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = directory.join(KEY_FILE);
    if !path.exists() {
        let mut key = [0; KEY_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        // Two boxes may start at once: the first key stays.
        publish(directory, KEY_FILE, &[&key], 0o400)?;
    }
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(&path)?;
    let metadata = file.metadata()?;
    if metadata.uid() != rustix::process::geteuid().as_raw()
        || metadata.mode() & 0o077 != 0
        || metadata.len() != KEY_BYTES as u64
    {
        return Err(io::Error::other(format!(
            "{}: owner, mode or size is wrong; remove it to make a new one",
            path.display()
        )));
    }
    let mut key = [0; KEY_BYTES];
    (&file).read_exact(&mut key)?;
    Ok(key)
}

/// Makes the file `name` with the content `parts`, at once or not at all. If there is one already, that one stays.
///
/// The content is written to a file without a name, so that a process that is killed meanwhile leaves nothing; where the filesystem
/// cannot do that (`O_TMPFILE`, open(2)), to one with a temporary name.
fn publish(directory: &Path, name: &str, parts: &[&[u8]], mode: u32) -> io::Result<()> {
    let path = directory.join(name);
    let linked =
        match OpenOptions::new().write(true).custom_flags(OFlags::TMPFILE.bits() as i32).mode(0o600).open(directory) {
            Ok(file) => {
                write_whole(&file, parts, mode)?;
                let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::linkat(CWD, unnamed, CWD, &path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
            }
            Err(_) => {
                // Boxes of several containers may share the directory, each with process number 1: so a random name.
                let temporary =
                    directory.join(format!("{name}.{:016x}.tmp", std::hash::RandomState::new().hash_one(name)));
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
                let linked = write_whole(&file, parts, mode).and_then(|()| fs::hard_link(&temporary, &path));
                fs::remove_file(&temporary)?;
                linked
            }
        };
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(directory)?.sync_all(),
    }
}

fn write_whole(mut file: &File, parts: &[&[u8]], mode: u32) -> io::Result<()> {
    for part in parts {
        file.write_all(part)?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}
