//! A containerd that comes and goes.

use std::{fs, process::Stdio, thread, time::Duration};

use rustix::process::Signal;
use wasmbox_tests::{
    Image, Version,
    cri::{ContainerConfig, Cri, Mount},
    eventually, on_each_version,
};

use super::{clear_fifos, ctr_run, remove_all, start};

// Versions of containerd differ in these.
on_each_version!(pods_outlive_containerd, containerd_killed_at_any_moment_leaves_nothing_that_cannot_be_removed);

/// They go on, and are still reached: streams, exit statuses, exec.
fn pods_outlive_containerd(version: Version) {
    let (mut containerd, busybox) = start(version);
    containerd.import(&Image::pause());
    let shared = containerd.directory().join("shared");
    fs::create_dir(&shared).expect("a new directory");
    let cri = Cri::of(&containerd);
    let mut sandbox = cri.sandbox("pod");
    sandbox.log_directory = containerd.directory().join("logs").display().to_string();
    let pod = cri.run(sandbox);
    let script = |name: &str, script: &str| ContainerConfig {
        mounts: vec![Mount {
            container_path: "/shared".into(),
            host_path: shared.display().to_string(),
            ..Mount::default()
        }],
        ..ContainerConfig::new(name, busybox.name(), &["/bin/sh", "-c", script])
    };
    let waits = "until [ -e /shared/$1 ]; do sleep 0.02; done";
    let goes_on = cri.start(
        &pod,
        script(
            "goes-on",
            &format!(
                "w() {{ {waits}; }}; echo before; w away; echo while-away; : >/shared/wrote; w back; echo after; exit 7"
            ),
        ),
    );
    let ends = cri.start(&pod, script("ends", &format!("w() {{ {waits}; }}; w away; echo last; exit 9")));
    let logs = containerd.directory().join("logs");
    let log = |name: &str| fs::read_to_string(logs.join(format!("{name}.log"))).unwrap_or_default();
    eventually("the first line", || log("goes-on").contains("before").then_some(()));
    containerd.end(Signal::KILL);
    fs::write(shared.join("away"), "").expect("our own file");
    eventually("it goes on", || shared.join("wrote").exists().then_some(()));
    eventually("the other one ended", || {
        let running = containerd.node().processes().into_iter();
        (running.filter(|(_, words)| words.starts_with("/bin/sh -c")).count() == 1).then_some(())
    });
    containerd.launch();
    let cri = Cri::of(&containerd);
    // The exit is not lost, nor what was written.
    let status = cri.ended(&ends);
    assert_eq!(status.exit_code, 9, "{status:?}\n{}", containerd.log());
    eventually("what was written meanwhile", || log("goes-on").contains("while-away").then_some(()));
    let (code, out, err) = cri.exec(&goes_on, &["/bin/sh", "-c", "echo inside; exit 3"]).expect("it runs");
    assert_eq!((code, out.as_str()), (3, "inside\n"), "{err}");
    fs::write(shared.join("back"), "").expect("our own file");
    let status = cri.ended(&goes_on);
    assert_eq!(status.exit_code, 7, "{status:?}");
    eventually("the last line", || log("goes-on").contains("after").then_some(()));
    cri.remove(&pod);
}

/// Clients fail; but what containerd knows afterwards can be removed, and there is nothing else.
fn containerd_killed_at_any_moment_leaves_nothing_that_cannot_be_removed(version: Version) {
    let (mut containerd, busybox) = start(version);
    for round in 0..5_u64 {
        let mut clients: Vec<_> = (0..4)
            .map(|number| {
                let id = format!("r{round}-{number}");
                let mut ctr = ctr_run(&containerd, &[busybox.name(), &id, "/bin/sleep", "0.1"]);
                thread::sleep(Duration::from_millis(20 * round));
                ctr.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter")
            })
            .collect();
        thread::sleep(Duration::from_millis(60 + 30 * round));
        containerd.end(Signal::KILL);
        for client in &mut clients {
            let _ = client.kill();
            let _ = client.wait();
        }
        containerd.launch();
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}
