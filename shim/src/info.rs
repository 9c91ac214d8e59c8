//! `-v` and `-info`.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use anyhow::Context;
use containerd_shim_protos::{
    protobuf::{Message, MessageField, well_known_types::any::Any},
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

use crate::{RUNTIME, features::features, options::Options};

/// The type of `features.Features` of opencontainers/runtime-spec, version 1, in JSON, as containerd names it.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// In the form of containerd's own shims.
pub fn version() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    writeln!(stdout(), "containerd-shim-wasmbox-v1:\n  Version: v{version}\n  Runtime: {RUNTIME}")?;
    Ok(())
}

/// What containerd 2 asks for before the first start: the runtime's name, whether its options are understood, and what the OCI runtime can,
/// by which containerd decides what it offers: mounts that are read-only with all below them, user namespaces.
pub fn info() -> anyhow::Result<()> {
    let options = read_any()?;
    let understood = options.as_ref().map(Options::from_any).transpose()?.unwrap_or_default();
    // One that does not say what it can is taken for one that can little.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let features = runtime.block_on(features(&understood)).inspect_err(|error| eprintln!("{error}")).ok();
    let features = features.map(|value| Any { type_url: FEATURES.into(), value, ..Any::default() });
    let info = RuntimeInfo {
        name: RUNTIME.into(),
        version: MessageField::some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() }),
        options: options.into(),
        features: features.into(),
        ..Default::default()
    };
    stdout().write_all(&info.write_to_bytes()?)?;
    Ok(())
}

/// The options on standard input, if any.
fn read_any() -> anyhow::Result<Option<Any>> {
    let input = read_input()?;
    if input.is_empty() {
        return Ok(None);
    }
    Ok(Some(Any::parse_from_bytes(&input).context("the runtime options on standard input")?))
}

/// What containerd wrote to standard input; nothing, if that is a terminal.
pub fn read_input() -> anyhow::Result<Vec<u8>> {
    /// containerd's own bound.
    const MOST: u64 = 10 << 20;
    let mut input = Vec::new();
    if !stdin().is_terminal() {
        stdin().lock().take(MOST).read_to_end(&mut input).context("reading standard input")?;
    }
    Ok(input)
}
