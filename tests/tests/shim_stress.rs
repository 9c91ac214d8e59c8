//! Many pods, with figures: in a row, at once, and many containers of one pod. Afterwards nothing is left, and nothing has grown.

use std::{
    thread,
    time::{Duration, Instant},
};

use wasmbox_tests::{
    Containerd, Image, Version,
    cri::{ContainerConfig, Cri, Pod},
    eventually,
    process::Process,
};

const IN_A_ROW: usize = 200;
const AT_ONCE: usize = 20;
/// One after the other, in one pod.
const CONTAINERS: usize = 60;

fn node() -> (Containerd, Image) {
    let containerd = Containerd::start(Version::V1_6);
    let image = Image::of("box").entrypoint(&["wasmbox", "serve", "--functions-dir", "/tmp", "--cache-dir", "none"]);
    let image = image.link("tmp", "/").build();
    containerd.import(&image);
    containerd.import(&Image::pause());
    (containerd, image)
}

fn up(cri: &Cri, image: &str, name: &str) -> (Pod, Duration) {
    let begin = Instant::now();
    let pod = cri.run(cri.sandbox(name));
    cri.start(&pod, ContainerConfig::new("box", image, &[]));
    (pod, begin.elapsed())
}

#[allow(clippy::print_stdout)]
fn report(what: &str, mut times: Vec<Duration>, whole: Duration) {
    times.sort();
    let ms = |at: usize| times[(times.len() * at / 100).min(times.len() - 1)].as_millis();
    println!(
        "{what}: {} in {:.1} s; up after {} ms (median), {} ms (p99)",
        times.len(),
        whole.as_secs_f64(),
        ms(50),
        ms(99)
    );
}

#[allow(clippy::print_stdout)]
#[test]
fn pods_in_a_row_and_at_once() {
    let (containerd, image) = node();
    let cri = Cri::of(&containerd);
    let row = |name: &str, number: usize| {
        let begin = Instant::now();
        let one = |number: usize| {
            let (pod, time) = up(&cri, image.name(), &format!("{name}-{number}"));
            cri.remove(&pod);
            time
        };
        let times = (0..number).map(one).collect();
        (times, begin.elapsed())
    };
    // containerd's memory settles.
    row("first", 5);
    let daemon = Process(containerd.process());
    let (before, descriptors) = (daemon.resident_bytes(), daemon.descriptors());
    let (times, whole) = row("row", IN_A_ROW);
    report("pods in a row", times, whole);
    let begin = Instant::now();
    let times = thread::scope(|scope| {
        let one = |number: usize| {
            let (cri, image) = (&cri, image.name());
            scope.spawn(move || {
                let (pod, time) = up(cri, image, &format!("at-once-{number}"));
                cri.remove(&pod);
                time
            })
        };
        let pods: Vec<_> = (0..AT_ONCE).map(one).collect();
        pods.into_iter().map(|pod| pod.join().expect("each pod comes and goes")).collect()
    });
    report("pods at once", times, begin.elapsed());
    let after = daemon.resident_bytes();
    println!("containerd: {} MiB before, {} MiB after", before >> 20, after >> 20);
    // It collects its garbage when it likes, and its connections as they are found closed.
    assert!(after < before + (64 << 20), "containerd grew from {before} to {after} bytes");
    eventually(&format!("of containerd's descriptors there are few more than {descriptors}"), || {
        (daemon.descriptors() < descriptors + 20).then_some(())
    });
}

#[allow(clippy::print_stdout)]
#[test]
fn a_shim_does_not_grow_with_what_it_ran() {
    let (containerd, image) = node();
    let cri = Cri::of(&containerd);
    let pod = cri.run(cri.sandbox("pod"));
    let shims = containerd.shims();
    let shim = Process(shims[0]);
    let run = |number: usize| {
        for _ in 0..number {
            let container = cri.start(&pod, ContainerConfig::new("box", image.name(), &[]));
            let (code, ..) = cri.exec(&container, &["/run/wasmbox/wasmbox", "--version"]).expect("it runs");
            assert_eq!(code, 0);
            cri.stop(&container, Duration::ZERO);
            cri.remove_container(&container);
        }
    };
    run(5);
    let (before, descriptors) = (shim.resident_bytes(), shim.descriptors());
    run(CONTAINERS);
    let after = shim.resident_bytes();
    println!("the shim: {} KiB before, {} KiB after {CONTAINERS} containers", before >> 10, after >> 10);
    assert!(after < before + (512 << 10), "it grew from {before} to {after} bytes");
    eventually("descriptors are closed", || (shim.descriptors() <= descriptors).then_some(()));
    cri.remove(&pod);
}
