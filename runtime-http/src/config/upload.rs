//! Functions that are put here through the admin port.

use std::path::PathBuf;

use super::{
    ConfigError,
    settings::{settings, whole},
    within,
};
use crate::limits::ByteSize;

settings! {
    /// Functions that are put here through the admin port.
    pub struct UploadSettings {
        /// File with the tokens of those who may put functions here through the admin port, one in each line; without it nobody may [default: none]
        #[arg(long, value_name = "FILE")]
        upload_token_file: PathBuf = ["UPLOAD_TOKEN_FILE"],
        /// Most functions in the functions directory, counted when one is put there, 1 to 100000 [default: 1000]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        upload_max_functions: usize = ["UPLOAD_MAX_FUNCTIONS"],
        /// Most bytes of all functions and their earlier versions, counted then, too [default: 4Gi]
        #[arg(long, value_name = "SIZE")]
        upload_total_size: ByteSize = ["UPLOAD_TOTAL_SIZE"],
        /// Versions of each function that are kept, the one that serves among them, 1 to 100 [default: 5]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        upload_versions: usize = ["UPLOAD_VERSIONS"],
    }
}

/// Who may put functions here, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConfig {
    /// `None`: nobody.
    pub token_file: Option<PathBuf>,
    /// Functions in the directory.
    pub functions: usize,
    /// Bytes of them, with their earlier versions.
    pub bytes: u64,
    /// Versions of each.
    pub versions: usize,
}

impl UploadSettings {
    pub(super) fn resolve(self) -> Result<UploadConfig, ConfigError> {
        let functions = self.upload_max_functions.unwrap_or(1000);
        within("--upload-max-functions", functions as u64, 1, 100_000)?;
        let versions = self.upload_versions.unwrap_or(5);
        within("--upload-versions", versions as u64, 1, 100)?;
        Ok(UploadConfig {
            token_file: self.upload_token_file,
            functions,
            bytes: self.upload_total_size.unwrap_or(ByteSize::of_mebibytes(4 << 10)).bytes(),
            versions,
        })
    }
}
