//! The binaries that a node needs, copied out of the image.

use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind, Seek},
    path::{Path, PathBuf},
};

use crate::replace::{self, Draft, FileError};

pub const SHIM: &str = "containerd-shim-wasmbox-v1";
const NAMES: [&str; 2] = [SHIM, "wasmbox"];

#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Node(#[from] FileError),
}

#[derive(Debug)]
pub struct Binaries {
    /// Of the image; they stay open, since the node's root is entered.
    files: Vec<(&'static str, File)>,
    /// On the node.
    directory: PathBuf,
}

impl Binaries {
    /// Those beside this program, for a directory of the node's.
    ///
    /// # Errors
    /// [`BinariesError::Read`], if one is missing.
    pub fn of_this_image(directory: PathBuf) -> Result<Binaries, BinariesError> {
        let failed = |path: &Path, source| BinariesError::Read { path: path.to_owned(), source };
        let own = env::current_exe().map_err(|source| failed(Path::new("/proc/self/exe"), source))?;
        let files = NAMES
            .into_iter()
            .map(|name| {
                let path = own.with_file_name(name);
                File::open(&path).map(|file| (name, file)).map_err(|source| failed(&path, source))
            })
            .collect::<Result<_, _>>()?;
        Ok(Binaries { files, directory })
    }

    /// On the node.
    pub fn shim(&self) -> PathBuf {
        self.directory.join(SHIM)
    }

    /// Puts what is missing or differs. Processes that run keep the file that they have.
    ///
    /// # Errors
    /// [`BinariesError`]
    pub fn put(&self) -> Result<(), BinariesError> {
        replace::make_directory(&self.directory)?;
        for (name, file) in &self.files {
            let target = self.directory.join(name);
            let failed = |source| BinariesError::Read { path: name.into(), source };
            let mut file = file;
            file.rewind().map_err(failed)?;
            if File::open(&target).and_then(|there| replace::is_same(file, there)).unwrap_or(false) {
                continue;
            }
            file.rewind().map_err(failed)?;
            Draft::write(&target, file, 0o755)?.commit()?;
            eprintln!("{}: written", target.display());
        }
        Ok(())
    }

    /// Those of another installation, that is somebody else's files in the directory, stay.
    ///
    /// # Errors
    /// [`BinariesError`]
    pub fn remove(&self) -> Result<(), BinariesError> {
        for name in NAMES {
            replace::remove(&self.directory.join(name))?;
        }
        // `/opt/wasmbox/bin` and `/opt/wasmbox`, if nothing else is in there.
        for directory in self.directory.ancestors().take(2) {
            match fs::remove_dir(directory) {
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                    return Err(BinariesError::Read { path: directory.to_owned(), source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
