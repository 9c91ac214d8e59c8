//! Ends of processes that are late.

use std::{fs::OpenOptions, path::Path};

use containerd_shim_protos::{
    api::{DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, StartRequest, StartResponse},
    protobuf::{MessageField, well_known_types::any::Any},
};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::ioctl_fionread,
};
use wasmbox_tests::{
    Version, eventually,
    task::{SERVICES, Shim},
};

use super::{remove_all, start};

/// containerd is told of an exec's end when what the exec wrote was read, or nobody reads it for 2 s; and of its container's not before.
#[test]
fn a_container_ends_after_its_execs() {
    let (containerd, busybox) = start(Version::V1_7);
    let shared: &[&str] = &["--with-ns", "pid:/proc/1/ns/pid"];
    for (id, namespaces) in [("own", &[][..]), ("shared", shared)] {
        let words = [busybox.name(), id, "/bin/sleep", "100000"];
        containerd.run(&[&["--detach"][..], namespaces, &words[..]].concat()).ok();
        let stdout = containerd.directory().join(format!("{id}-stdout"));
        mknodat(CWD, &stdout, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a new fifo");
        let reader = OpenOptions::new().read(true).write(true).open(&stdout).expect("our own fifo");
        let events = containerd.events();
        let shim = Shim::of(&containerd, id);
        exec(&shim, id, &stdout);
        eventually("it has written", || (ioctl_fionread(&reader).expect("our own fifo") > 0).then_some(()));
        containerd.ctr(&["task", "kill", "--signal", "9", id]).ok();
        eventually("both ends are told", || (exits(&events.of(id)).len() == 2).then_some(()));
        assert_eq!(exits(&events.of(id)), ["late", id]);
        let request = DeleteRequest { id: id.into(), exec_id: "late".into(), ..DeleteRequest::default() };
        let deleted: DeleteResponse = shim.call(SERVICES[0], "Delete", &request).expect("Delete");
        assert_eq!(deleted.exit_status, 137);
        drop(events);
        remove_all(&containerd);
    }
}

/// Writes a line, and does not end.
fn exec(shim: &Shim, id: &str, stdout: &Path) {
    let process = serde_json::json!({
        "args": ["/bin/sh", "-c", "echo unread; exec sleep 100000"], "cwd": "/", "env": ["PATH=/bin"],
    });
    let spec = MessageField::some(Any { value: process.to_string().into_bytes(), ..Any::default() });
    let (id, exec_id) = (id.to_owned(), String::from("late"));
    let stdout = stdout.display().to_string();
    let request =
        ExecProcessRequest { id: id.clone(), exec_id: exec_id.clone(), spec, stdout, ..ExecProcessRequest::default() };
    let _: Empty = shim.call(SERVICES[0], "Exec", &request).expect("Exec");
    let request = StartRequest { id, exec_id, ..StartRequest::default() };
    let _: StartResponse = shim.call(SERVICES[0], "Start", &request).expect("Start");
}

/// Of which processes the end was told, in this order.
fn exits(events: &[wasmbox_tests::containerd::Event]) -> Vec<String> {
    let exits = events.iter().filter(|event| event.topic == "/tasks/exit");
    exits.map(|event| event.content["id"].as_str().expect("a name").to_owned()).collect()
}
