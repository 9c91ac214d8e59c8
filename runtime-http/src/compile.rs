//! `wasmbox compile`: fills the AOT cache.

use std::{process::ExitCode, sync::Arc};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    boot,
    config::Config,
    confined::optional_interfaces::OptionalInterfaces,
    engine::tier::Tiers,
    metrics::Metrics,
    store::{compiler::Prepared, file::FunctionsDir, name::ModuleName},
};

/// Compiles each module of the functions directory that the cache does not have yet; for a check, also without a cache.
///
/// # Errors
/// If there is no cache, or no directory.
pub fn compile(config: Config, is_check: bool) -> anyhow::Result<ExitCode> {
    // What is asked for is this box's cache, of optimised code.
    let config = Config { node: None, tiers: Tiers::Off, ..config };
    let directory = boot::functions_dir(&config)?;
    let metrics = Arc::new(Metrics::new());
    // A place for what functions keep is the serving box's.
    let optional = OptionalInterfaces { wasi_p3: config.wasi_p3, keyvalue: true };
    let wasm = boot::Wasm::offering(&config, optional, &metrics)?;
    anyhow::ensure!(
        is_check || wasm.compiler.has_cache(),
        "there is no cache to fill; name a directory with --cache-dir"
    );
    let names = directory.list()?;
    let progress = ProgressBar::new(names.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg} {elapsed}").expect("the template is a constant"),
    );
    let mut failed = 0;
    for name in &names {
        progress.set_message(name.to_string());
        let line = match compile_one(&wasm, &directory, name, config.max_module_size.bytes()) {
            Ok(outcome) => format!("{name}: {outcome}"),
            Err(error) => {
                failed += 1;
                format!("{name}: not compiled: {error}")
            }
        };
        // Without a terminal there is no bar; the lines are there in any case.
        progress.suspend(|| eprintln!("{line}"));
        progress.inc(1);
    }
    progress.finish_and_clear();
    eprintln!("{} of {} modules are in the cache", names.len() - failed, names.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compile_one(wasm: &boot::Wasm, directory: &FunctionsDir, name: &ModuleName, limit: u64) -> anyhow::Result<String> {
    let (bytes, _) = directory.read(name.as_str(), limit)?;
    match wasm.compiler.prepare(bytes, None)? {
        Prepared::Ready(_) => Ok("was compiled already".into()),
        Prepared::Wasm(source) => {
            let started = std::time::Instant::now();
            let compiled = wasm.compiler.compile(source.into_module()?)?;
            Ok(format!("compiled in {:.1} s to {} KiB", started.elapsed().as_secs_f64(), compiled.code.size() >> 10))
        }
    }
}
