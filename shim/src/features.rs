//! What the OCI runtime can do: its call `features` (runc 1.1, crun 1.8.6 and later), opencontainers/runtime-spec `features.md`.

use std::{io, process::Stdio, time::Duration};

use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{environment, options::Options, runtime::DEFAULT_BINARY};

/// containerd waits for the answer, and answers nobody meanwhile.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum FeaturesError {
    #[error("OCI runtime {binary} features: {source}")]
    Start { binary: String, source: io::Error },
    #[error("OCI runtime {binary} features did not end within {DEADLINE:?} and was killed")]
    Timeout { binary: String },
    #[error("OCI runtime {binary} features failed: {message}")]
    Failed { binary: String, message: String },
    #[error("OCI runtime {binary} features: {source}")]
    Json { binary: String, source: serde_json::Error },
}

/// The JSON object that the OCI runtime prints.
///
/// # Errors
/// [`FeaturesError`], also of a runtime that does not know the call.
pub async fn features(options: &Options) -> Result<Vec<u8>, FeaturesError> {
    let binary = options.binary_name.clone().unwrap_or_else(|| DEFAULT_BINARY.into());
    let name = || binary.display().to_string();
    let mut command = tokio::process::Command::from(environment::command(&binary));
    command.arg("features").stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await;
    let output = output.map_err(|_| FeaturesError::Timeout { binary: name() })?;
    let output = output.map_err(|source| FeaturesError::Start { binary: name(), source })?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(FeaturesError::Failed { binary: name(), message });
    }
    let features: Map<String, Value> =
        serde_json::from_slice(&output.stdout).map_err(|source| FeaturesError::Json { binary: name(), source })?;
    Ok(Value::Object(features).to_string().into_bytes())
}
