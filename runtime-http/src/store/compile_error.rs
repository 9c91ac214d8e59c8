//! Why the bytes of a file cannot become a program.

use std::io;

use crate::confined::CompilerError;
use crate::module_format::TextTooLarge;

/// Why the bytes of a file cannot become a program.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("not a WebAssembly module, component or text (the file starts with none of their signatures)")]
    UnknownFormat,
    #[error(transparent)]
    Text(#[from] TextTooLarge),
    #[error(transparent)]
    Compiler(#[from] CompilerError),
    /// The node's service could not, and so nobody can.
    #[error("{0}")]
    Node(String),
    #[error(
        "a native image, which runs only with TRUST_PRECOMPILED=true; serve the .wasm instead, it is compiled and cached"
    )]
    PrecompiledUntrusted,
    #[error("a native image that this wasmbox cannot load: {0}")]
    PrecompiledUnusable(String),
    #[error("compiled code that cannot be loaded: {0}")]
    Unloadable(String),
    #[error("memory for the module: {0}")]
    Memory(#[from] io::Error),
}

impl CompileError {
    /// Whether the same bytes would fail the same way at any other time.
    pub fn is_of_module(&self) -> bool {
        match self {
            CompileError::UnknownFormat
            | CompileError::Text(_)
            | CompileError::Node(_)
            | CompileError::PrecompiledUntrusted => true,
            CompileError::Compiler(error) => error.is_of_module(),
            // Memory may have been short.
            CompileError::PrecompiledUnusable(_) | CompileError::Unloadable(_) | CompileError::Memory(_) => false,
        }
    }
}
