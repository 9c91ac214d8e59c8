//! The manual: a page for the program and one for each of its commands, made from their help.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::cli;

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ManualError {
    path: PathBuf,
    source: io::Error,
}

/// Writes `wasmbox.1`, `wasmbox-serve.1` and so on; makes the directory, if it is not there.
///
/// # Errors
/// [`ManualError`], if one cannot be written.
pub fn write(directory: &Path) -> Result<ExitCode, ManualError> {
    let failed = |source| ManualError { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(cli::command(), directory).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}
