//! Settings files that are nearly right.

use std::{fmt::Write, fs};

use arbitrary::Unstructured;
use wasmbox_tests::{WasmBox, guest};

use crate::call;

const KEYS: &[&str] = &[
    "args",
    "output",
    "path",
    "output-buffer-bytes",
    "allowed-outbound-hosts",
    "env",
    "preopens",
    "limits",
    "caps",
    "limits.cpu-quota",
    "limits.memory-request",
    "limits.invocation-timeout",
    "caps.memory-request",
    "caps.cpu-quota",
    "env.A",
    "unknown",
    "\"\"",
];
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "65536",
    "9223372036854775807",
    "18446744073709551616",
    "nan",
    "1e300",
    "true",
    "\"\"",
    "\"64Mi\"",
    "\"0\"",
    "\"10s\"",
    "\"cgi\"",
    "\"body\"",
    "\"stripped\"",
    "\"500m\"",
    "\"1Ti\"",
    "\"localhost:80\"",
    "[\"a\", \"b\"]",
    "[\"\\u0000\"]",
    "[]",
    "{}",
    "{ A = \"b\" }",
    "{ \"A=B\" = \"c\" }",
    "[{ host = \"/\", guest = \"/\" }]",
    "[{ host = \"..\", guest = \"\" }]",
    "2026-01-01",
    "\"\"\"\n\"\"\"",
    "{ cpu-quota = 1 }",
    "{ memory-request = \"1Mi\" }",
    "{ invocation-timeout = 1 }",
];

pub fn act(server: &WasmBox, name: &str, bytes: &mut Unstructured) -> arbitrary::Result<()> {
    let mut text = String::new();
    for _ in 0..bytes.int_in_range(0..=6)? {
        match bytes.int_in_range(0..=9)? {
            0 => {
                let _ = writeln!(text, "[{}]", bytes.choose(KEYS)?);
            }
            1 => {
                let _ = writeln!(text, "[[{}]]", bytes.choose(KEYS)?);
            }
            2 => text.push_str(bytes.arbitrary::<&str>()?),
            _ => {
                let _ = writeln!(text, "{} = {}", bytes.choose(KEYS)?, bytes.choose(VALUES)?);
            }
        }
    }
    let mut content = text.into_bytes();
    if bytes.ratio(1, 6)? && !content.is_empty() {
        let at = bytes.choose_index(content.len())?;
        content[at] = bytes.arbitrary()?;
    }
    let (settings, function) = (format!("{name}.toml"), format!("{name}.wat"));
    server.put(&settings, &content);
    server
        .put(&function, if bytes.arbitrary()? { guest::arguments() } else { guest::printing("Status: 200\n\nx", "") });
    call(server, &format!("/{name}?arg=a"), b"input");
    for file in [settings, function] {
        fs::remove_file(server.functions().join(file)).expect("the file is there");
    }
    Ok(())
}
