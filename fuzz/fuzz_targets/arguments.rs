//! The arguments in a query: what comes out can be an argument of a program, and encoded and read again it is the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use wasmbox_fuzz::api::arguments::arguments;

fuzz_target!(|query: &str| {
    if let Ok(found) = arguments(query) {
        assert!(found.iter().all(|argument| !argument.contains('\0')));
        let pairs: Vec<String> =
            found.iter().map(|argument| format!("arg={}", utf8_percent_encode(argument, NON_ALPHANUMERIC))).collect();
        assert_eq!(arguments(&pairs.join("&")).as_ref(), Ok(&found));
    }
});
