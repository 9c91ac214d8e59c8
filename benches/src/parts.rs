//! What each part of a request costs alone: measured by the program `parts`, which has the box's allocator.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::fixture::Fixture;
use crate::target::Program;
use crate::tool;

/// The section's name.
pub const PARTS: &str = "parts";

/// Makes sure that the program is there: before anything is measured.
///
/// # Errors
///
/// When it cannot be built.
pub async fn prepare(fixture: &Fixture) -> Result<()> {
    tool::build("wasmbox-bench", &program(fixture), fixture.program(Program::Bench)).await
}

/// Beside this one.
fn program(fixture: &Fixture) -> PathBuf {
    fixture.program(Program::Bench).with_file_name(PARTS)
}

/// Prints the parts, in tables, beside what is in `results`.
///
/// # Errors
///
/// When the program fails.
pub async fn measure(fixture: &Fixture, batches: u32, results: &Path) -> Result<()> {
    let mut parts = Command::new(program(fixture));
    parts.arg("--batches").arg(batches.to_string());
    parts.arg("--component").arg(fixture.component());
    parts.arg("--results").arg(results);
    parts.arg("--home").arg(fixture.directory(PARTS)?);
    tool::run(parts).await
}
