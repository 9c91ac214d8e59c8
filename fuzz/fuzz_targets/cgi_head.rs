//! The header block that a function writes: its rest is the body, byte for byte, and its head can be sent.

#![no_main]

use bytes::Bytes;
use http::Response;
use libfuzzer_sys::fuzz_target;
use wasmbox_fuzz::api::cgi::split_head;

fuzz_target!(|output: &[u8]| {
    match split_head(Bytes::copy_from_slice(output)) {
        Ok((head, body)) => {
            assert!(output.ends_with(&body));
            assert!(output[..output.len() - body.len()].ends_with(b"\n"));
            assert!(head.status.as_u16() >= 200);
            let mut response = Response::builder().status(head.status);
            for (name, value) in &head.headers {
                assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
                response = response.header(name, value);
            }
            assert!(response.body(()).is_ok());
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
});
