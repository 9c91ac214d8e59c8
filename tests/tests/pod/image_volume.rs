//! Functions as an image that is mounted as a volume, as Kubernetes' `volumes[].image` asks containerd 2.1 and later for it.

use wasmbox_tests::{registry::RealRegistry, workspace};

use super::*;

const FUNCTIONS: &str = "127.0.0.1:5000/functions:1";
const ARTIFACT: &str = "127.0.0.1:5000/artifact:1";

/// A node with a registry that has functions, both ways.
fn prepared(version: Version) -> (Kubelet, RealRegistry) {
    let kubelet = Kubelet::new(version);
    let registry = RealRegistry::on(kubelet.containerd.node());
    let directory = kubelet.containerd.directory().join("functions");
    fs::write(directory.join("greeting.wat"), guest::arguments()).expect("a new file");
    fs::write(directory.join("greeting.toml"), "args = ['one']").expect("a new file");
    let greeting = directory.join("greeting.wat");
    for (flags, source, target) in [(&["--image"][..], &directory, FUNCTIONS), (&[], &greeting, ARTIFACT)] {
        let mut command = kubelet.containerd.node().on_its_network(workspace::wasmbox());
        let output = command.arg("push").args(flags).arg(source).arg(format!("oci://{target}")).output();
        let output = output.expect("nsenter, of the package util-linux");
        assert!(output.status.success(), "{output:?}");
    }
    (kubelet, registry)
}

/// A box whose functions are those of an image.
fn of_image(kubelet: &Kubelet, image: &str) -> ContainerConfig {
    ContainerConfig {
        mounts: vec![Mount {
            container_path: "/functions".into(),
            readonly: true,
            image: Some(wasmbox_tests::cri::Id { id: image.into() }),
            ..Mount::default()
        }],
        ..kubelet.wasmbox("box")
    }
}

fn functions_come_from_an_image(version: Version) {
    let (kubelet, _registry) = prepared(version);
    kubelet.cri.pull(FUNCTIONS).expect("an image of functions");
    let pod = kubelet.pod("volume");
    // As in a Deployment of the chart: not root, which can read them anyway.
    let config = ContainerConfig { linux: restricted(BOX, memory(256)), ..of_image(&kubelet, FUNCTIONS) };
    kubelet.cri.start(&pod, config);
    assert_eq!(kubelet.ask(&pod, PORT, "/hi").ok().text(), "hello\n");
    assert_eq!(kubelet.ask(&pod, PORT, "/greeting").ok().text(), "greeting\0one\0\n\n");
    kubelet.cri.remove(&pod);
}

/// containerd unpacks layers of images alone: of an artifact it mounts nothing, and says nothing. docs/kubernetes.md warns of it.
fn an_artifact_is_an_empty_volume(version: Version) {
    let (kubelet, _registry) = prepared(version);
    kubelet.cri.pull(ARTIFACT).expect("an artifact");
    let pod = kubelet.pod("volume");
    kubelet.cri.start(&pod, of_image(&kubelet, ARTIFACT));
    kubelet.ask(&pod, PORT, "/greeting").problem(404, "module-not-found");
    kubelet.ask(&pod, PORT, "/artifact").problem(404, "module-not-found");
    kubelet.cri.remove(&pod);
}

mod containerd_2_1 {
    #[test]
    #[ignore = "needs Go: make e2e"]
    fn functions_come_from_an_image() {
        super::functions_come_from_an_image(super::Version::V2_1);
    }

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn an_artifact_is_an_empty_volume() {
        super::an_artifact_is_an_empty_volume(super::Version::V2_1);
    }
}

mod containerd_2_3 {
    #[test]
    #[ignore = "needs Go: make e2e"]
    fn functions_come_from_an_image() {
        super::functions_come_from_an_image(super::Version::V2_3);
    }

    #[test]
    #[ignore = "needs Go: make e2e"]
    fn an_artifact_is_an_empty_volume() {
        super::an_artifact_is_an_empty_volume(super::Version::V2_3);
    }
}
