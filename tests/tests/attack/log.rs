//! Authors who write into the log: it is others', too.

use wasmbox_tests::{Attack, Request};

use crate::assert_coded;

/// A request that is refused costs a line, which is short whatever the request says.
#[test]
fn refusals_with_long_values() {
    Attack::within(256).log_bytes(32 << 20).run(|server| {
        let long = "9".repeat(30_000);
        let before = server.log().len();
        for header in ["Cpu-Quota", "Memory-Request", "Invocation-Timeout"] {
            let answer = server.call(Request::get("/hello").header(header, &long), "");
            assert_coded(&answer, &["bad-limit"]);
            assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
        }
        let answer = server.get(&format!("/{}", "n".repeat(30_000)));
        assert_coded(&answer, &["bad-module-name", "module-not-found"]);
        assert!(answer.body.len() < 4096, "{} bytes", answer.body.len());
        let grown = server.log().len() - before;
        // The victim's calls are in it, too.
        assert!(grown < 64 << 10, "{grown} bytes");
    });
}
