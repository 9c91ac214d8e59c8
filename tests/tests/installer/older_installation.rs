//! An installation of an earlier version, mended while pods run.

use std::fs;

use wasmbox_tests::{Version, on_each_version};

use super::machine::{CONFIG, INSTALLED, LINK, Machine, SHIM, end};

// 1.6 reads `runtime_path`, but does not heed it.
on_each_version!(from V1_7: they_outlive_the_mending_of_an_older_installation);

/// As it was installed before: by a path in the configuration alone.
fn they_outlive_the_mending_of_an_older_installation(version: Version) {
    let machine = Machine::new(version);
    machine.installer("install").ok();
    let runtime = "runtime_type = \"io.containerd.wasmbox.v1\"\n";
    let written = [CONFIG, "/etc/containerd/conf.d/wasmbox.toml"].map(|path| machine.node.path(path));
    let file = written.iter().find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains(runtime)));
    let file = file.expect("the handler is in one of the files");
    let text = fs::read_to_string(file).expect("it is there");
    let by_path = text.replace(runtime, &format!("{runtime}runtime_path = \"{INSTALLED}/{SHIM}\"\n"));
    fs::write(file, by_path).expect("a file of the node's");
    fs::remove_file(machine.node.path(LINK)).expect("the link is there");
    machine.restart();
    let mut pods = machine.pods();
    machine.under_load(|| {
        machine.installer("install").ok();
        assert!(machine.is_linked());
        assert_eq!(fs::read_to_string(file).expect("it is there"), text);
        pods.all_run(&machine);
        machine.restart();
        pods.all_run(&machine);
    });
    // Later ones found the shim by its name, and named the cgroup driver.
    let annotations = "container_annotations = [\"wasmbox.dev/*\"]\n";
    let table = text.lines().find(|line| line.ends_with(".runtimes.wasmbox]")).expect("the handler's table");
    let options = table.replace(".wasmbox]", ".wasmbox.options]") + "\nSystemdCgroup = false\n";
    fs::write(file, text.replace(annotations, &format!("{annotations}{options}"))).expect("a file of the node's");
    machine.restart();
    let names_the_driver = || machine.doctor("handler").contains("SystemdCgroup");
    assert_eq!(names_the_driver(), version.is_2(), "{}", machine.doctor("handler"));
    machine.under_load(|| {
        machine.installer("install").ok();
        assert_eq!(fs::read_to_string(file).expect("it is there"), text);
        assert!(!names_the_driver());
        pods.all_run(&machine);
    });
    pods.remove(&machine);
    end(&machine);
}
