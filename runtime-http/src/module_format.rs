//! What a file of the functions directory is, by its content; the file's name says nothing. And what kinds of programs there are.

/// What the bytes of a module file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A binary core module.
    Module,
    /// A binary component.
    Component,
    /// The text format, of a module or a component.
    Text,
    /// A native image made ahead of time by wasmtime: machine code, which runs only where the operator trusts the directory.
    Native,
}

/// The largest text, bytes. What is written by hand is smaller, and reading a text takes ninety times its size in memory.
pub const LARGEST_TEXT: usize = 2 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a text of {size} bytes, more than {LARGEST_TEXT}; serve its binary form instead (wasm-tools parse)")]
pub struct TextTooLarge {
    size: usize,
}

/// # Errors
/// If a text of `size` bytes is too large.
pub fn check_text(size: usize) -> Result<(), TextTooLarge> {
    if size <= LARGEST_TEXT { Ok(()) } else { Err(TextTooLarge { size }) }
}

const MAGIC: &[u8] = b"\0asm";
/// How each ELF file starts, and the number of an operating system that wasmtime writes into its own (elf(5), `EI_OSABI`).
const ELF: &[u8] = b"\x7fELF";
const OSABI: (usize, u8) = (7, 200);

impl Format {
    /// `None` if it is nothing that could run.
    pub fn of(bytes: &[u8]) -> Option<Format> {
        if let Some(rest) = bytes.strip_prefix(MAGIC) {
            // Version 1, layer 0 is a core module; layer 1 is a component (component-model, Binary.md, "preamble").
            return match rest.get(..4) {
                Some([_, _, 1, 0]) => Some(Format::Component),
                _ => Some(Format::Module),
            };
        }
        if bytes.starts_with(ELF) && bytes.get(OSABI.0) == Some(&OSABI.1) {
            return Some(Format::Native);
        }
        looks_like_text(bytes).then_some(Format::Text)
    }
}

/// The text format starts with a parenthesis, after white space and comments (`;; line`, `(; block ;)`).
fn looks_like_text(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(bytes.len());
    matches!(bytes.get(start..), Some([b'(', ..] | [b';', b';', ..])) && std::str::from_utf8(bytes).is_ok()
}

/// What can be invoked, as far as settings depend on it. Here, since settings are parsed without the sandbox (`fuzz/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramKind {
    Core,
    Command,
    Http {
        /// Whether one instance may serve several requests at once, as those of WASI 0.3 may.
        at_once: bool,
    },
}

impl ProgramKind {
    /// The word for it in logs and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            ProgramKind::Core => "command",
            ProgramKind::Command => "command-component",
            ProgramKind::Http { .. } => "http-component",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        assert_eq!(Format::of(b"\0asm\x01\0\0\0"), Some(Format::Module));
        assert_eq!(Format::of(b"\0asm\x0d\0\x01\0"), Some(Format::Component));
        assert_eq!(Format::of(b"\0asm"), Some(Format::Module));
        assert_eq!(Format::of(b"\n ;; comment\n(module)"), Some(Format::Text));
        assert_eq!(Format::of(b"(; block ;) (component)"), Some(Format::Text));
        let native = wasmtime::Engine::default().precompile_module(b"\0asm\x01\0\0\0").unwrap();
        assert_eq!(Format::of(&native), Some(Format::Native));
        for nothing in [&b""[..], b"\x7fELF", b"#!/bin/sh", b"hello", b"(\xff)"] {
            assert_eq!(Format::of(nothing), None, "{nothing:?}");
        }
    }
}
