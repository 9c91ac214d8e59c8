//! Paths of requests: a module's name that comes out must be harmless as a file's name.

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use wasmbox_fuzz::{api::route::Route, store::name::ModuleName};

fuzz_target!(|path: &str| {
    if let Ok(Route::Module { name, below }) = Route::parse(path) {
        let name = name.as_str();
        assert!(ModuleName::is_valid(name));
        let components: Vec<_> = Path::new(name).components().collect();
        assert!(matches!(components[..], [Component::Normal(_)]), "{name:?} is no single component");
        assert!(!name.starts_with('.') && name.len() <= ModuleName::LONGEST);
        assert!(path[1..].starts_with(name));
        assert_eq!(below, path[1..].contains('/'));
    }
});
