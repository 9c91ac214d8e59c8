//! `-v` and `-info`.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use anyhow::Context;
use containerd_shim_protos::{
    protobuf::{Message, MessageField, well_known_types::any::Any},
    types::introspection::{RuntimeInfo, RuntimeVersion},
};

use crate::{RUNTIME, options::Options};

/// In the form of containerd's own shims.
pub fn version() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    writeln!(stdout(), "containerd-shim-wasmbox-v1:\n  Version: v{version}\n  Runtime: {RUNTIME}")?;
    Ok(())
}

/// What containerd 2 asks for before the first start: the runtime's name, and whether its options are understood.
pub fn info() -> anyhow::Result<()> {
    let options = read_any()?;
    if let Some(options) = &options {
        Options::from_any(options)?;
    }
    let info = RuntimeInfo {
        name: RUNTIME.into(),
        version: MessageField::some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() }),
        options: options.into(),
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
