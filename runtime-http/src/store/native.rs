//! Turns native images into modules and components. The only place where machine code enters the process.

#![allow(unsafe_code, reason = "wasmtime cannot check that a native image is what it was when it was compiled")]

use std::{fs::File, os::fd::AsRawFd};

use wasmtime::{Engine, Module, Precompiled, component::Component};

use crate::artifacts::Artifact;
use crate::{
    confined::memory_file::Sealed,
    engine::{Engines, tier::CodeMaker},
};

/// Loaded code.
pub enum Code {
    Module(Module),
    Component(Component),
}

/// Native code that may run, and why.
pub enum Native<'a> {
    /// Made by the confined compiler, for this process.
    Compiled(&'a Sealed),
    /// Its MAC or digest was checked; it is mapped from the file, which only this user can write, or the node's root.
    Cached(Artifact),
    /// From the functions directory, which the operator trusts (`TRUST_PRECOMPILED=true`). A copy: the file may change.
    Trusted(&'a [u8]),
}

impl Native<'_> {
    /// # Errors
    /// wasmtime's, if the image was made by another version, with other settings, or for another CPU; or if there is not enough memory.
    pub fn load(self, engines: &Engines, by: CodeMaker) -> wasmtime::Result<Code> {
        match self {
            Native::Cached(artifact) => mapped(engines, by, artifact.file),
            Native::Compiled(sealed) => mapped(engines, by, sealed.file()?),
            Native::Trusted(bytes) => match kind(Engine::detect_precompiled(bytes))? {
                // SAFETY: the operator vouches for the image, which was copied from its file.
                Precompiled::Module => unsafe { Module::deserialize(plain(engines, by), bytes) }.map(Code::Module),
                Precompiled::Component => component(engines, by, |engine| {
                    // SAFETY: as above.
                    unsafe { Component::deserialize(engine, bytes) }
                }),
            },
        }
    }
}

/// For all but components of WASI 0.3.
fn plain(engines: &Engines, by: CodeMaker) -> &Engine {
    // Where there is none for it, wasmtime refuses Winch's code.
    engines.winch().filter(|_| by == CodeMaker::Winch).unwrap_or(engines.plain())
}

/// Loads it for the engine that it was compiled for: wasmtime refuses what was made with other settings.
fn component(
    engines: &Engines,
    by: CodeMaker,
    load: impl Fn(&Engine) -> wasmtime::Result<Component>,
) -> wasmtime::Result<Code> {
    let loaded = load(plain(engines, by)).or_else(|error| match engines.concurrent() {
        Ok(concurrent) if by != CodeMaker::Winch => load(concurrent),
        Ok(_) => Err(error),
        Err(missing) => Err(error.context(missing.to_string())),
    });
    loaded.map(Code::Component)
}

fn mapped(engines: &Engines, by: CodeMaker, file: File) -> wasmtime::Result<Code> {
    // For components wasmtime takes a path only: this one leads to the very file that was checked.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match kind(Engine::detect_precompiled_file(&path)?)? {
        // SAFETY: the image was written by a compiler of wasmtime's for this box: by the confined one into a file that was sealed when that had
        // ended, or into the private cache as its MAC shows, or into the node's cache, which only the node's root can write. What
        // module it was made from decides what it may do when it runs, and whoever runs that module has asked for it. None of these
        // files is ever changed in place.
        Precompiled::Module => unsafe { Module::deserialize_open_file(plain(engines, by), file) }.map(Code::Module),
        Precompiled::Component => component(engines, by, |engine| {
            // SAFETY: as above.
            unsafe { Component::deserialize_file(engine, &path) }
        }),
    }
}

fn kind(detected: Option<Precompiled>) -> wasmtime::Result<Precompiled> {
    detected.ok_or_else(|| wasmtime::Error::msg("it is no native image of wasmtime's"))
}

impl Code {
    /// Bytes of the mapped image.
    pub fn size(&self) -> usize {
        let range = match self {
            Code::Module(module) => module.image_range(),
            Code::Component(component) => component.image_range(),
        };
        (range.end as usize).saturating_sub(range.start as usize)
    }
}
