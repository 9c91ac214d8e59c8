//! Where a box finds cgroups for its workers, and what it says where there are none: in mount namespaces and as users of its own.

use std::{fs, os::unix::fs::chown, path::Path};

use wasmbox_tests::{Request, TestCgroup, WasmBox, cgroup::mount_point, guest, server::Launch, workspace};

/// A user without any rights.
const NOBODY: u32 = 1000;

/// A server of a function that prints a line.
fn launch() -> Launch {
    WasmBox::launch().function("hello.wat", guest::hello())
}

/// Runs `script` in a mount namespace of its own, which then becomes the server.
fn in_namespace(launch: Launch, script: &str) -> Launch {
    launch.through([
        "unshare",
        "--mount",
        "--propagation=private",
        "sh",
        "-ec",
        &format!("{script}; exec \"$@\""),
        "sh",
    ])
}

/// As a user without rights, who may read the binary and write the cache.
fn as_nobody(launch: Launch) -> Launch {
    let binary = launch.directory().join("wasmbox");
    fs::copy(workspace::wasmbox(), &binary).expect("a copy of the server's binary");
    chown(launch.cache(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let become_nobody =
        format!("shift; exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} \"$@\"", binary.display());
    launch.through(["sh", "-ec", &become_nobody, "sh"])
}

/// The three answers to a place where there can be no cgroups: `auto` runs and warns, `true` does not start, `false` says nothing. What is
/// said has all of `parts`, in one line.
#[track_caller]
fn is_impossible(launch: impl Fn() -> Launch, parts: &[&str]) {
    let (code, said) = launch().flag("--enable-cgroups", true).failure();
    assert_eq!(code, 1, "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| parts.iter().all(|part| line.contains(part))).collect();
    assert_eq!(lines.len(), 1, "{parts:?} are not in one line: {said}");

    let server = launch().flag("--enable-cgroups", "auto").start();
    assert!(!server.get("/hello").ok().headers.contains_key("wasmbox-throttled-time-us"));
    let log = log_of(server);
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("Cpu-Quota is not enforced"), "{log}");
    assert!(parts.iter().all(|part| warnings[0].contains(part)), "{parts:?} are not in {}", warnings[0]);
    assert!(log.contains("cgroups=none"), "{log}");

    let server = launch().flag("--enable-cgroups", false).start();
    server.get("/hello").ok();
    let log = log_of(server);
    assert!(!log.contains("WARN") && !log.contains("not enforced"), "{log}");
}

/// Ends a server; gives its log.
fn log_of(server: WasmBox) -> String {
    fs::read_to_string(server.stop().directory().join("log")).expect("a log")
}

/// It has found `place`, without being told to, and makes its leaves in `cgroup`.
#[track_caller]
fn finds(launch: Launch, place: &Path, cgroup: &TestCgroup) {
    let server = launch.flag("--enable-cgroups", true).flag("--inline", "off").start();
    let line = server.logged(&["serving", "cgroups="]);
    assert!(line.ends_with(&format!(" cgroups=v1, pinned, {}", place.display())), "{line}");
    let answer = server.call(Request::get("/hello").header("Cpu-Quota", "250"), "").ok();
    assert!(answer.number("cgroup-creation-time") > 0.0, "{answer:?}");
    let quota = fs::read_to_string(cgroup.leaf().join("cpu.cfs_quota_us")).expect("the leaf is there");
    assert_eq!(quota.trim(), "25000");
    let _ = server.stop();
    assert!(cgroup.leaves().is_empty());
}

#[test]
fn its_own_cgroup() {
    let cgroup = TestCgroup::cpu();
    finds(launch().within(&cgroup), cgroup.path("cpu"), &cgroup);
}

#[test]
fn a_cgroup_that_is_named() {
    let cgroup = TestCgroup::cpu();
    // It need not be its own.
    finds(launch().env("CGROUP_ROOT", cgroup.path("cpu").display()), cgroup.path("cpu"), &cgroup);
}

#[test]
fn a_place_that_is_no_cgroup() {
    is_impossible(
        || launch().env("CGROUP_ROOT", "/tmp"),
        &["/tmp is no cgroup file system", "CGROUP_ROOT", "ENABLE_CGROUPS=false"],
    );
    is_impossible(|| launch().env("CGROUP_ROOT", "/nowhere"), &["/nowhere: No such file or directory", "CGROUP_ROOT"]);
}

/// As in most containers.
#[test]
fn a_hierarchy_that_is_mounted_read_only() {
    let cgroup = TestCgroup::cpu();
    let mount = mount_point("cpu").display().to_string();
    is_impossible(
        || {
            let script = format!("mount --bind {mount} {mount}; mount -o remount,bind,ro {mount}");
            in_namespace(launch().within(&cgroup), &script)
        },
        &[
            "creating the cgroup ",
            &format!("{}/wasmbox-", cgroup.path("cpu").display()),
            "Read-only file system (os error 30)",
            "/run/wasmbox/cgroup",
            "CGROUP_ROOT",
        ],
    );
}

#[test]
fn a_user_without_rights() {
    let cgroup = TestCgroup::cpu();
    is_impossible(
        || as_nobody(launch().within(&cgroup)),
        &["creating the cgroup ", "Permission denied (os error 13)", "have the subtree and its files belong to it"],
    );
}

#[test]
fn a_user_without_rights_in_a_subtree_of_its_own() {
    let cgroup = TestCgroup::cpu();
    let path = cgroup.path("cpu");
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    for file in fs::read_dir(path).expect("the cgroup is there") {
        chown(file.expect("the cgroup is there").path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    // Its process is elsewhere: a thread may go where its user may write.
    finds(as_nobody(launch().env("CGROUP_ROOT", path.display())), path, &cgroup);
}

/// Where the runtime class puts it.
#[test]
fn a_delegated_subtree() {
    let (container, cgroup) = (TestCgroup::cpu(), TestCgroup::cpu());
    let place = "/run/wasmbox/cgroup";
    let script =
        format!("mount -t tmpfs none /run; mkdir -p {place}; mount --bind {} {place}", cgroup.path("cpu").display());
    finds(in_namespace(launch().within(&container), &script), Path::new(place), &cgroup);
    // One that is there and does not work is not passed over.
    is_impossible(
        || {
            let script = format!("{script}; mount -o remount,bind,ro {place}");
            in_namespace(launch().within(&container), &script)
        },
        &["creating the cgroup /run/wasmbox/cgroup/wasmbox-", "Read-only file system"],
    );
    assert!(container.leaves().is_empty());
}

/// The original's way: the host's cgroups as a volume. Its own it finds by its process number.
#[test]
fn the_hosts_cgroups_at_data() {
    let data = Data::make();
    let cgroup = TestCgroup::cpu();
    let hierarchy = mount_point("cpu");
    let below = cgroup.path("cpu").strip_prefix(&hierarchy).expect("it is in this hierarchy");

    let script = format!("mount --bind {} {}", hierarchy.display(), data.0.display());
    finds(in_namespace(launch().within(&cgroup), &script), &data.0.join(below), &cgroup);

    let all = hierarchy.parent().expect("hierarchies are mounted side by side");
    let script = format!("mount --rbind {} {}", all.display(), data.0.display());
    let launch = in_namespace(launch().within(&cgroup), &script).env("POD_UID", "c4a8a5ac-6a5c-4dc6-8bf6-b5f6c2b2ab11");
    finds(launch, &data.0.join("cpu").join(below), &cgroup);
}

/// The place at which the original's manifests mount it; removed again if this test had to make it.
struct Data(&'static Path, bool);

impl Data {
    fn make() -> Data {
        let path = Path::new("/data");
        Data(path, fs::create_dir(path).is_ok())
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.1 {
            let _ = fs::remove_dir(self.0);
        }
    }
}
