//! A node as nearly all are: systemd, cgroup v2 alone, containerd as a unit of type `notify`, cgroups by systemd. In a virtual machine
//! (`wasmbox_tests::vm`), all tests in one, but for that which has the node switched off.

mod node;
mod pod;
mod schedule;
mod service;

use std::{fs, process::Command, time::Duration};

use node::{
    SLICE, boxes, doctor, files, installer, kill_containerd, nothing_is_left, only, prepare, said, scope, shims,
    started, systemctl,
};
use pod::{Boxed, MIB, ask};
use rustix::process::Signal;
use schedule::Schedule;
use service::Service;
use wasmbox_tests::{Answer, Request, eventually, patience::in_one_of_three, process::Process, vm};

/// It restarts containerd, which is a unit, and takes all of it away again.
#[test]
fn what_is_installed_goes_to_the_byte() {
    vm::on_a_node(|| {
        prepare();
        let installed = started();
        installer("uninstall");
        assert_ne!(started(), installed);
        let before = files();
        assert!(!before.keys().any(|path| path.to_string_lossy().contains("wasmbox")), "{:#?}", before.keys());
        installer("install");
        let dump = said(Command::new("containerd").args(["config", "dump"]));
        let handler = dump.split_once(".runtimes.wasmbox]").expect("the handler").1;
        // The driver is that of each cgroup's path.
        assert!(handler.contains("io.containerd.wasmbox.v1") && !handler.contains("SystemdCgroup"), "{handler}");
        installer("uninstall");
        assert!(files() == before, "{:#?}\n{:#?}", files().keys(), before.keys());
        installer("install");
        let at = started();
        installer("install");
        assert_eq!(started(), at, "the second time changed something");
    });
}

/// A unit of type `notify` has a socket for that, which is not for what it starts.
#[test]
fn ctr_runs() {
    vm::on_a_node(|| {
        prepare();
        let mut command = Command::new("ctr");
        command.args(["--namespace", "k8s.io", "run", "--rm", "--runtime", "io.containerd.wasmbox.v1"]);
        let image = "docker.io/library/busybox:test";
        let said = said(command.args([image, "one", "/bin/sh", "-c", "echo \"$NOTIFY_SOCKET|\""]));
        assert_eq!(said, "|\n");
        nothing_is_left();
    });
}

#[test]
fn a_pod_has_its_limits() {
    vm::on_a_node(|| {
        let pod = Boxed::new();
        for container in [&pod.function_box, &pod.sidecar] {
            assert_eq!(systemctl(&["show", "--value", "--property", "Delegate", &scope(container)]), "yes\n");
        }
        let read = |file: &str| fs::read_to_string(pod.cgroup().join(file)).expect("a file of the cgroup");
        assert_eq!((read("memory.max"), read("cpu.max")), (format!("{}\n", 256 * MIB), "100000 100000\n".into()));
        assert_eq!((read("cgroup.type"), read("box/cgroup.type")), ("domain threaded\n".into(), "threaded\n".into()));
        quotas_hold(ask);
        // What the kubelet is told is what the cgroup says.
        let used = || -> u64 {
            let text = read("cpu.stat");
            let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).expect("its use");
            used.parse::<u64>().expect("a number") * 1000
        };
        let before = used();
        let stats = pod.cri.stats(&pod.function_box);
        let told = stats.cpu.and_then(|cpu| cpu.core_nanoseconds).expect("its use of CPU").value;
        assert!((before..=used()).contains(&told), "{before} {told}");
        assert_eq!(pod.cri.exec(&pod.function_box, &["/run/wasmbox/wasmbox", "status"]).expect("it runs").0, 0);
        pod.cri.stop(&pod.sidecar, Duration::from_secs(1));
        pod.cri.stop(&pod.function_box, Duration::from_secs(20));
        assert_eq!(pod.cri.status(&pod.function_box).exit_code, 0);
        pod.remove();
    });
}

/// A tenth, a quarter, a half of a processor, in two seconds: bounds are wide, since the machine is emulated.
fn quotas_hold(ask: impl Fn(http::request::Builder) -> Option<Answer>) {
    // Compiled before its time counts.
    ask(Request::options("/busy")).expect("an answer");
    for quota in [100, 250, 500_u32] {
        let burns = || {
            let request = Request::get("/busy").header("Cpu-Quota", quota.to_string());
            let stopped = ask(request.header("Invocation-Timeout", "2000")).expect("an answer");
            assert_eq!((stopped.status, stopped.header("wasmbox-error")), (504, "deadline-exceeded"), "{stopped:?}");
            (quota, stopped.number("wasmbox-cpu-time-us"))
        };
        let allowed = f64::from(quota) * 2000.0;
        in_one_of_three(burns, |(_, used)| (allowed / 4.0..allowed * 1.4 + 100_000.0).contains(used));
    }
}

/// The unit's restrictions leave what the box needs: cgroups, a compiler of its own, its cache.
#[test]
fn a_box_is_a_service() {
    vm::on_a_node(|| {
        let service = Service::start();
        service.answers();
        service.is_confined();
        quotas_hold(Service::ask);
        // The code is in the cache, which nobody else can read.
        assert_eq!(said(Command::new("stat").args(["--format=%U %a", "/var/cache/wasmbox"])), "wasmbox 700\n");
        systemctl(&["restart", "wasmbox.service"]);
        service.answers();
        assert_eq!(Service::log().matches("compiling").count(), 2, "{}", Service::log());
    });
}

/// A call that fails is a unit that has failed.
#[test]
fn a_timer_calls_a_function() {
    vm::on_a_node(|| {
        let service = Service::start();
        service.answers();
        let schedule = Schedule::install();
        let said = schedule.called("hello");
        assert_eq!((&*schedule::result("hello"), said.contains("hello\n")), ("success", true), "{said}");
        let said = schedule.called("nobody");
        assert_eq!((&*schedule::result("nobody"), said.contains("404")), ("exit-code", true), "{said}");
    });
}

/// What an administrator does to systemd, and to containerd, is nothing to a pod.
#[test]
fn a_pod_outlives_what_its_node_goes_through() {
    vm::on_a_node(|| {
        let mut pod = Boxed::new();
        let of_the_box = scope(&pod.function_box);
        for words in [
            &["daemon-reload"][..],
            &["daemon-reexec"],
            &["set-property", "--runtime", &of_the_box, "CPUWeight=50"],
            &["set-property", "--runtime", SLICE, "CPUWeight=50"],
            &["restart", "containerd.service"],
        ] {
            systemctl(words);
            let text = fs::read_to_string(pod.cgroup().join("box/cgroup.type")).expect("its subtree");
            assert_eq!(text, "threaded\n", "{words:?}");
            assert_eq!(eventually("the box answers", || ask(Request::get("/hi"))).text(), "hello\n");
        }
        quotas_hold(ask);
        pod.reconnect();
        pod.all_run();
        pod.remove();
    });
}

/// A box that is killed is started anew in its pod; a containerd that is killed comes back by itself, and finds what ran, and what ended
/// while it was away.
#[test]
fn a_killed_box_and_a_killed_containerd_come_back() {
    vm::on_a_node(|| {
        let mut pod = Boxed::new();
        let shim = only(shims());
        Process(only(boxes())).signal(Signal::KILL);
        assert_eq!(pod.cri.ended(&pod.function_box).exit_code, 137);
        pod.start_box_again();

        let function_box = only(boxes());
        kill_containerd(|| {});
        pod.reconnect();
        pod.all_run();
        assert_eq!((only(boxes()), only(shims())), (function_box, shim));
        pod.answers();

        kill_containerd(|| Process(function_box).signal(Signal::KILL));
        pod.reconnect();
        assert_eq!(pod.cri.ended(&pod.function_box).exit_code, 137);
        pod.start_box_again();
        assert_eq!(only(shims()), shim);
        pod.remove();
    });
}

/// Nobody is left to tell of what runs in the pod, so it is ended, before anybody removes it.
#[test]
fn a_pod_whose_shim_is_killed_goes_with_it() {
    vm::on_a_node(|| {
        let pod = Boxed::new();
        Process(only(shims())).signal(Signal::KILL);
        pod.all_ended();
        let sleeps = || node::processes("/bin/sleep 100000").is_empty();
        eventually("its processes end", || (boxes().is_empty() && sleeps()).then_some(()));
        pod.remove();
        // Its name, its port and its socket are free again.
        Boxed::run().remove();
    });
}

/// The next start finds the node as it was, but for what ran: that has ended, and leaves nothing when it is removed.
#[test]
fn a_node_that_was_switched_off_comes_back() {
    vm::on_a_node_that_restarts(
        || Boxed::new().note(),
        || {
            let pod = Boxed::noted();
            assert!(!pod.cri.is_ready(&pod.pod));
            pod.all_ended();
            assert!(doctor("orphans").ends_with("none of 0 shims and 0 containers"), "{}", doctor("orphans"));
            let at = started();
            installer("install");
            assert_eq!(started(), at, "something of the installation was missing");
            for container in [&pod.sidecar, &pod.function_box] {
                pod.cri.remove_container(container);
            }
            pod.remove();
            Boxed::run().remove();
        },
    );
}
