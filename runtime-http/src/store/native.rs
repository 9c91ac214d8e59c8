//! Turns native images into modules and components. The only place where machine code enters the process.

#![allow(unsafe_code, reason = "wasmtime cannot check that a native image is what it was when it was compiled")]

use std::os::fd::AsRawFd;

use wasmtime::{Engine, Module, Precompiled, component::Component};

use super::artifact::Artifact;

/// Loaded code.
pub enum Code {
    Module(Module),
    Component(Component),
}

/// Native code that may run, and why.
pub enum Native<'a> {
    /// Compiled by this process.
    Compiled(&'a [u8]),
    /// Its MAC was checked; it is mapped from the file, which only this user can write.
    Cached(Artifact),
    /// From the functions directory, which the operator trusts (`TRUST_PRECOMPILED=true`). A copy: the file may change.
    Trusted(&'a [u8]),
}

impl Native<'_> {
    /// # Errors
    /// wasmtime's, if the image was made by another version, with other settings, or for another CPU.
    pub fn load(self, engine: &Engine, kind: Precompiled) -> wasmtime::Result<Code> {
        // SAFETY (all four): the image was written by wasmtime's compiler for this user: by this process just now, or into the
        // private cache as its MAC shows, or the operator vouches for it. The cache's files are never changed in place.
        match (self, kind) {
            (Native::Cached(artifact), Precompiled::Module) => {
                // SAFETY: see above.
                unsafe { Module::deserialize_open_file(engine, artifact.file) }.map(Code::Module)
            }
            (Native::Cached(artifact), Precompiled::Component) => {
                // For components wasmtime takes a path only: this one leads to the very file that was checked.
                let path = format!("/proc/self/fd/{}", artifact.file.as_raw_fd());
                // SAFETY: see above.
                unsafe { Component::deserialize_file(engine, path) }.map(Code::Component)
            }
            (Native::Compiled(bytes) | Native::Trusted(bytes), Precompiled::Module) => {
                // SAFETY: see above.
                unsafe { Module::deserialize(engine, bytes) }.map(Code::Module)
            }
            (Native::Compiled(bytes) | Native::Trusted(bytes), Precompiled::Component) => {
                // SAFETY: see above.
                unsafe { Component::deserialize(engine, bytes) }.map(Code::Component)
            }
        }
    }
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
