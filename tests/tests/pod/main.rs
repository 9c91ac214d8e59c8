//! Pods through CRI, as a kubelet makes them: WasmBoxes beside ordinary containers, on each version of containerd.

mod choice;
mod image_volume;
mod knative;
mod life;
mod mixed;
mod parity;
mod streams;

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use http::Request;
use wasmbox_tests::{
    Answer, ContainerConfig, Containerd, Cri, Image, Version,
    cri::{
        ContainerSecurity, ContainerState, KeyValue, LinuxContainer, Mount, Namespaces, Pod, Resources, SandboxConfig,
        SandboxSecurity,
    },
    eventually, guest,
};

const PORT: u16 = 8095;
const ADMIN_PORT: u16 = 8086;
const MIB: i64 = 1 << 20;

/// A node with images, functions and a place for logs.
struct Kubelet {
    cri: Cri,
    containerd: Containerd,
}

impl Kubelet {
    fn new(version: Version) -> Kubelet {
        Kubelet::configured(version, "")
    }

    /// With options of the runtime.
    fn configured(version: Version, options: &str) -> Kubelet {
        Kubelet::of(Containerd::configured(version, options))
    }

    fn of(containerd: Containerd) -> Kubelet {
        for image in [Image::pause(), Image::busybox(), box_image()] {
            containerd.import(&image);
        }
        let functions = containerd.directory().join("functions");
        fs::create_dir(&functions).expect("a new directory");
        fs::write(functions.join("hi.wat"), guest::hello()).expect("a new file");
        Kubelet { cri: Cri::of(&containerd), containerd }
    }

    fn sandbox(&self, name: &str) -> SandboxConfig {
        let log_directory = self.containerd.directory().join("logs").join(name).display().to_string();
        SandboxConfig { log_directory, ..self.cri.sandbox(name) }
    }

    fn pod(&self, name: &str) -> Pod {
        self.cri.run(self.sandbox(name))
    }

    fn log(&self, pod: &Pod, name: &str) -> String {
        fs::read_to_string(Path::new(&pod.config.log_directory).join(name)).unwrap_or_default()
    }

    /// A box that serves the node's functions, in cgroups or not at all.
    fn wasmbox(&self, name: &str) -> ContainerConfig {
        let functions = self.containerd.directory().join("functions").display().to_string();
        ContainerConfig {
            envs: vec![env("ENABLE_CGROUPS", "true")],
            mounts: vec![Mount {
                container_path: "/functions".into(),
                host_path: functions,
                readonly: true,
                ..Mount::default()
            }],
            ..ContainerConfig::new(name, "docker.io/library/box:test", &[])
        }
    }

    /// Asks until there is an answer that is no 503.
    fn ask(&self, pod: &Pod, port: u16, path: &str) -> Answer {
        let address = SocketAddr::new(self.cri.address(pod), port);
        eventually(&format!("an answer of {address}"), || {
            let answer = self.containerd.node().call(address, Request::get(path), "").ok();
            answer.filter(|answer| answer.status != 503)
        })
    }

    /// A container's cgroup in the hierarchy that has a file of that name.
    fn cgroup(&self, container: &str, file: &str) -> PathBuf {
        let mut places = self.containerd.node().cgroups().into_iter().map(|cgroup| cgroup.join(container));
        places.find(|place| place.join(file).exists()).unwrap_or_else(|| panic!("no cgroup of {container} has {file}"))
    }

    fn cgroup_file(&self, container: &str, file: &str) -> String {
        let path = self.cgroup(container, file).join(file);
        fs::read_to_string(&path).expect("the file is there").trim().to_owned()
    }

    /// A container's first process.
    fn process(&self, container: &str) -> PathBuf {
        // Not of the cpu hierarchy, where a box's threads are in cgroups of their own.
        let procs = self.cgroup(container, "memory.limit_in_bytes").join("cgroup.procs");
        let pids = fs::read_to_string(procs).expect("the file is there");
        Path::new("/proc").join(pids.lines().next().expect("it runs"))
    }
}

/// Users of sidecars and of boxes.
const SIDECAR: i64 = 65532;
const BOX: i64 = 1000;
const SIDECAR_PORT: u16 = 8012;

fn box_image() -> Image {
    Image::of("box").entrypoint(&["wasmbox", "serve", "--functions-dir", "/functions", "--cache-dir", "none"]).build()
}

fn busybox(name: &str, words: &[&str]) -> ContainerConfig {
    ContainerConfig::new(name, "docker.io/library/busybox:test", words)
}

fn env(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.into(), value: value.into() }
}

fn memory(mebibytes: i64) -> Resources {
    Resources { memory_limit_in_bytes: mebibytes * MIB, ..Resources::default() }
}

fn limited(resources: Resources) -> Option<LinuxContainer> {
    Some(LinuxContainer { resources: Some(resources), security: None })
}

fn restricted(uid: i64, resources: Resources) -> Option<LinuxContainer> {
    Some(LinuxContainer { resources: Some(resources), security: Some(ContainerSecurity::restricted(uid)) })
}

/// `NAME: value` of a process's `/proc` file.
fn field(process: &Path, file: &str, name: &str) -> String {
    let text = fs::read_to_string(process.join(file)).expect("it runs");
    let fields: HashMap<_, _> = text.lines().filter_map(|line| line.split_once(':')).collect();
    fields.get(name).unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}
