//! Many at once.

use std::process::Stdio;

use wasmbox_tests::Version;

use super::{ctr_run, start};

/// Each with a shim of its own.
#[test]
fn a_hundred_at_once() {
    let (containerd, busybox) = start(Version::V1_6);
    let clients: Vec<_> = (0..100)
        .map(|number| {
            let (id, script) = (format!("c{number}"), format!("echo {number}; exit 3"));
            let mut ctr = ctr_run(&containerd, &[busybox.name(), &id, "/bin/sh", "-c", &script]);
            ctr.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nsenter")
        })
        .collect();
    for (number, client) in clients.into_iter().enumerate() {
        let output = client.wait_with_output().expect("our child");
        assert_eq!(output.status.code(), Some(3), "{number}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{number}\n"));
    }
}
