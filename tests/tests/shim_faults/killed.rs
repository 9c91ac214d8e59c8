//! Shims and boxes that are killed.

use std::{process::Stdio, thread, time::Duration};

use rustix::process::Signal;
use wasmbox_tests::{
    Containerd, Image, Version,
    cri::{ContainerConfig, Cri},
    eventually, on_each_version,
    process::Process,
};

use super::{box_image, clear_fifos, ctr_run, remove_all, start, stopped};

// Versions of containerd differ in these.
on_each_version!(
    a_killed_shim_leaves_nothing,
    a_shim_killed_at_any_moment_leaves_nothing,
    pods_of_a_killed_shim_can_be_removed,
);

/// containerd notices, calls `delete`, and tells that the container ended as if killed.
fn a_killed_shim_leaves_nothing(version: Version) {
    let (containerd, busybox) = start(version);
    let image = box_image();
    containerd.import(&image);
    for round in 0..3 {
        // containerd may take a moment to forget a name.
        let (ordinary, one) = (&format!("ordinary-{round}"), &format!("box-{round}"));
        containerd.run(&["--detach", busybox.name(), ordinary, "/bin/sleep", "100000"]).ok();
        containerd.run(&["--detach", image.name(), one]).ok();
        let mut waiting = containerd.command("ctr");
        waiting.args(["--namespace", containerd.namespace(), "task", "exec", "--exec-id", "waits", ordinary]);
        waiting.args(["/bin/sleep", "100000"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut waiting = waiting.spawn().expect("nsenter, of the package util-linux");
        eventually("the exec", || {
            containerd.node().processes().iter().filter(|(_, words)| words == "/bin/sleep 100000 ").nth(1).map(drop)
        });
        let shims = containerd.shims();
        assert_eq!(shims.len(), 2, "round {round}: {:#?}", containerd.node().processes());
        shims.into_iter().for_each(|shim| Process(shim).signal(Signal::KILL));
        eventually("their processes end", || {
            let left = containerd.node().processes();
            let ran = |words: &str| words.starts_with("/bin/sleep") || words.contains("/run/wasmbox/wasmbox");
            (!left.iter().any(|(_, words)| ran(words))).then_some(())
        });
        // Who waits is told.
        eventually("the end of ctr", || waiting.try_wait().expect("our child"));
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

/// Also in the middle of a creation, a start or a deletion.
fn a_shim_killed_at_any_moment_leaves_nothing(version: Version) {
    let (containerd, busybox) = start(version);
    let image = box_image();
    containerd.import(&image);
    for round in 0..12_u64 {
        let words = if round % 2 == 0 { &[busybox.name(), "one", "/bin/true"][..] } else { &[image.name(), "one"] };
        let mut ctr = ctr_run(&containerd, words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter");
        eventually("the shim", || {
            let ended = ctr.try_wait().expect("our child").is_some();
            (ended || !containerd.shims().is_empty()).then_some(())
        });
        thread::sleep(Duration::from_millis(round * 11));
        // It may have ended by then.
        containerd.shims().into_iter().for_each(|shim| {
            let _ = Process(shim).try_signal(Signal::KILL);
        });
        eventually("the end of ctr", || ctr.try_wait().expect("our child"));
        remove_all(&containerd);
    }
    clear_fifos(&containerd);
}

/// Nothing is stuck, and the name is free again.
fn pods_of_a_killed_shim_can_be_removed(version: Version) {
    let (containerd, busybox) = start(version);
    let image = box_image();
    containerd.import(&image);
    containerd.import(&Image::pause());
    let cri = Cri::of(&containerd);
    for _ in 0..3 {
        let pod = cri.run(cri.sandbox("pod"));
        let ordinary = cri.start(&pod, ContainerConfig::new("ordinary", busybox.name(), &["/bin/sleep", "100000"]));
        let one = cri.start(&pod, ContainerConfig::new("box", image.name(), &[]));
        let shims = containerd.shims();
        assert_eq!(shims.len(), 1, "one for the pod: {:#?}", containerd.node().processes());
        Process(shims[0]).signal(Signal::KILL);
        for container in [&ordinary, &one] {
            // As with every shim: containerd says 255 of what it could not learn.
            let code = cri.ended(container).exit_code;
            assert!([137, 255].contains(&code), "{code}");
        }
        cri.remove(&pod);
    }
}

#[test]
fn a_killed_box_is_told_of() {
    let containerd = Containerd::start(Version::V1_6);
    let image = box_image();
    containerd.import(&image);
    for _ in 0..3 {
        containerd.run(&["--detach", image.name(), "box"]).ok();
        let boxes = || {
            let processes = containerd.node().processes().into_iter();
            processes.filter(|(_, words)| words.starts_with("/run/wasmbox/wasmbox")).map(|(pid, _)| pid).next()
        };
        Process(eventually("the box", boxes)).signal(Signal::KILL);
        stopped(&containerd, "box");
        let deleted = containerd.ctr(&["task", "delete", "box"]);
        assert!(deleted.stderr.contains("137"), "{deleted:?}");
        containerd.ctr(&["container", "delete", "box"]).ok();
    }
}
