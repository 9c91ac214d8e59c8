//! What a file is, told by its content: native code must never pass for anything else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wasmbox_fuzz::module_format::Format;

fuzz_target!(|content: &[u8]| {
    let format = Format::of(content);
    match format {
        Some(Format::Module | Format::Component) => assert!(content.starts_with(b"\0asm")),
        Some(Format::Text) => {
            assert!(std::str::from_utf8(content).is_ok() && content.iter().any(|byte| *byte == b'(' || *byte == b';'))
        }
        Some(Format::Native) | None => assert!(!content.starts_with(b"\0asm")),
    }
    if wasmtime::Engine::detect_precompiled(content).is_some() {
        assert_eq!(format, Some(Format::Native));
    }
});
