//! What each part of a request costs alone: measured by the program `parts`, which has the box's allocator.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::fixture::Fixture;
use crate::target::Program;
use crate::tool;

/// The section's name.
pub const PARTS: &str = "parts";

/// Prints the parts, in tables, beside what is in `results`.
///
/// # Errors
///
/// When the program cannot be built, or fails.
pub async fn measure(fixture: &Fixture, batches: u32, results: &Path) -> Result<()> {
    let bench = fixture.program(Program::Bench);
    let program = bench.with_file_name(PARTS);
    tool::build("wasmbox-bench", &program, bench).await?;
    let mut parts = Command::new(program);
    parts.arg("--batches").arg(batches.to_string());
    parts.arg("--component").arg(fixture.component());
    parts.arg("--results").arg(results);
    parts.arg("--home").arg(fixture.directory(PARTS)?);
    tool::run(parts).await
}
