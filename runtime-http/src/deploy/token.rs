//! The token by which a box's admin port knows who may change functions and read their logs.

use std::{env, fs, path::PathBuf};

#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// File whose first line is a token of the box's --upload-token-file; without it, the token is that of the variable WASMBOX_TOKEN
    #[arg(long, value_name = "FILE", env = "WASMBOX_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
#[error("--token-file {}: {reason}; its first line is the token", path.display())]
pub struct TokenError {
    path: PathBuf,
    reason: String,
}

impl TokenArgs {
    /// `None` if there is neither a file nor the variable.
    ///
    /// # Errors
    /// [`TokenError`] if there is none in the file.
    pub fn token(&self) -> Result<Option<String>, TokenError> {
        let Some(path) = &self.token_file else {
            return Ok(env::var("WASMBOX_TOKEN").ok().filter(|token| !token.is_empty()));
        };
        let failed = |reason: String| TokenError { path: path.clone(), reason };
        let text = fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        let first = text.lines().map(str::trim).find(|line| !line.is_empty());
        first.map(|token| Some(token.to_owned())).ok_or_else(|| failed("it is empty".into()))
    }

    /// Whether it was said on the command line: what variables say is for all commands.
    pub fn is_said(&self) -> bool {
        let file = self.token_file.as_ref();
        file.is_some_and(|file| env::var_os("WASMBOX_TOKEN_FILE").as_ref() != Some(&file.into()))
    }
}
