//! What goes in and out of a pod's containers: exec, attach, forwarded ports, terminals, logs.

use wasmbox_tests::{
    cri::{Attach, Exec, PortForward},
    on_each_version,
    streaming::{RESIZE, STDIN, STDOUT, Stream},
};

use super::*;

on_each_version!(
    commands_run_in_each_container,
    input_and_output_are_attached_to,
    ports_are_forwarded,
    terminals_have_a_size,
    logs_have_every_line,
);

fn commands_run_in_each_container(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("exec");
    let sleep = ["/bin/sleep", "1000"];
    let sidecar =
        kubelet.cri.start(&pod, ContainerConfig { linux: restricted(65532, memory(32)), ..busybox("sidecar", &sleep) });
    let wasmbox = kubelet.cri.start(&pod, kubelet.wasmbox("box"));
    let script = "id -u; echo wrong >&2; exit 9";
    let ran = kubelet.cri.exec(&sidecar, &["/bin/sh", "-c", script]).expect("the command runs");
    assert_eq!(ran, (9, "65532\n".into(), "wrong\n".into()));
    kubelet.ask(&pod, PORT, "/hi");
    // The image is empty; this is there all the same.
    let (code, status, _) = kubelet.cri.exec(&wasmbox, &["/run/wasmbox/wasmbox", "status"]).expect("the command runs");
    assert!(code == 0 && status.contains("ready"), "{code} {status}");
    let refused = kubelet.cri.exec(&wasmbox, &["/no/such/program"]).expect_err("there is no such program");
    assert!(refused.message().contains("/no/such/program"), "{refused}");
    let request = Exec {
        container: sidecar,
        command: ["/bin/sh", "-c", "read line; echo got $line; echo wrong >&2; exit 3"].map(String::from).to_vec(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut stream = Stream::open(&kubelet.containerd, &kubelet.cri.stream("Exec", request));
    stream.send(STDIN, b"a line\n");
    let [stdout, stderr, status] = stream.finish();
    assert_eq!((stdout.as_str(), stderr.as_str()), ("got a line\n", "wrong\n"));
    assert!(status.contains("exit code 3"), "{status}");
    kubelet.cri.remove(&pod);
}

fn input_and_output_are_attached_to(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("attach");
    let echo = ["/bin/sh", "-c", "while read line; do echo got $line; done; echo the end"];
    let container = kubelet.cri.start(&pod, ContainerConfig { stdin: true, ..busybox("echo", &echo) });
    let request =
        || Attach { container: container.clone(), stdin: true, stdout: true, stderr: true, ..Attach::default() };
    for line in ["one", "two"] {
        let mut stream = Stream::open(&kubelet.containerd, &kubelet.cri.stream("Attach", request()));
        stream.send(STDIN, format!("{line}\n").as_bytes());
        stream.until(STDOUT, &format!("got {line}\n"));
    }
    // Between two attachments the container's input has not ended.
    assert_eq!(kubelet.cri.status(&container).state, ContainerState::Running as i32);
    logged(&kubelet, &pod, "echo.log", &["stdout F got one\n", "stdout F got two\n"]);
    kubelet.cri.remove(&pod);
}

/// Waits for all of it in a container's log, which containerd writes by and by.
fn logged(kubelet: &Kubelet, pod: &Pod, name: &str, parts: &[&str]) {
    eventually(&format!("{parts:?} in {name}"), || {
        let log = kubelet.log(pod, name);
        parts.iter().all(|part| log.contains(part)).then_some(())
    });
}

fn ports_are_forwarded(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("ports");
    kubelet.cri.start(&pod, kubelet.wasmbox("box"));
    kubelet.ask(&pod, PORT, "/hi");
    let request = PortForward { pod: pod.id.clone(), ports: vec![PORT.into()] };
    let mut stream = Stream::open(&kubelet.containerd, &kubelet.cri.stream("PortForward", request));
    // Channel 0 is the port's, 1 its errors'.
    stream.send(0, b"GET /hi HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
    let answer = stream.until(0, "hello\n");
    assert!(answer.contains("HTTP/1.1 200 OK"), "{answer}");
    kubelet.cri.remove(&pod);
}

fn terminals_have_a_size(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("terminals");
    let script = format!("{UNTIL_RESIZED} read line; exit 5");
    let config = ContainerConfig { stdin: true, tty: true, ..busybox("terminal", &["/bin/sh", "-c", &script]) };
    let container = kubelet.cri.start(&pod, config);
    let request = Attach { container: container.clone(), stdin: true, tty: true, stdout: true, stderr: false };
    let mut stream = Stream::open(&kubelet.containerd, &kubelet.cri.stream("Attach", request));
    resize(&mut stream);
    stream.until(STDOUT, "resized\r\n");
    let request = Exec {
        container: container.clone(),
        command: vec!["/bin/sh".into(), "-c".into(), format!("{UNTIL_RESIZED} exit 6")],
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    };
    let mut exec = Stream::open(&kubelet.containerd, &kubelet.cri.stream("Exec", request));
    resize(&mut exec);
    let [stdout, _, status] = exec.finish();
    assert!(stdout.contains("resized\r\n") && status.contains("exit code 6"), "{stdout} {status}");
    stream.send(STDIN, b"\n");
    assert_eq!(kubelet.cri.ended(&container).exit_code, 5);
    logged(&kubelet, &pod, "terminal.log", &["stdout F resized"]);
    kubelet.cri.remove(&pod);
}

/// Ends when its terminal has the size that [`resize`] asks for: that goes its own way, and may come late.
const UNTIL_RESIZED: &str = "until [ \"$(stty size)\" = '41 123' ]; do sleep 0.1; done; echo resized;";

fn resize(stream: &mut Stream) {
    stream.send(RESIZE, br#"{"Width":123,"Height":41}"#);
}

fn logs_have_every_line(version: Version) {
    let kubelet = Kubelet::new(version);
    let pod = kubelet.pod("logs");
    let script = "echo one; echo wrong >&2; /bin/busybox yes | head -n 20000 | /bin/busybox tr -d '\\n'; echo; \
                  /bin/busybox seq 20000; printf last";
    let container = kubelet.cri.start(&pod, busybox("lines", &["/bin/sh", "-c", script]));
    assert_eq!(kubelet.cri.ended(&container).exit_code, 0);
    // containerd's own buffer is written by and by.
    let log = eventually("the last line", || {
        Some(kubelet.log(&pod, "lines.log")).filter(|log| log.contains(" last") && log.contains(" wrong\n"))
    });
    let mut streams: HashMap<&str, String> = HashMap::new();
    for line in log.lines() {
        // "2026-01-01T00:00:00.000000000Z stdout F text"; P is part of a line that goes on.
        let mut fields = line.splitn(4, ' ');
        let mut field = || fields.next().unwrap_or_else(|| panic!("a line of a log: {line}"));
        let (time, stream, tag, text) = (field(), field(), field(), field());
        assert!(time.starts_with("20") && time.contains('T'), "{line}");
        let whole = streams.entry(stream).or_default();
        *whole += text;
        match tag {
            "F" => whole.push('\n'),
            "P" => {}
            other => panic!("tag {other}: {line}"),
        }
    }
    let numbers: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(streams["stdout"], format!("one\n{}\n{numbers}last", "y".repeat(20_000)));
    assert_eq!(streams["stderr"], "wrong\n");
    let wasmbox = kubelet.cri.start(&pod, kubelet.wasmbox("box"));
    kubelet.ask(&pod, PORT, "/hi");
    kubelet.cri.stop(&wasmbox, std::time::Duration::from_secs(30));
    logged(&kubelet, &pod, "box.log", &["stderr F ", "8095"]);
    kubelet.cri.remove(&pod);
}
