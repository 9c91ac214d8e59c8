//! `wasmbox doctor`: what works, and the remedy for what does not.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::{Command, Output, Stdio},
};

use wasmbox_tests::{WasmBox, guest, temporary::TempDir, workspace};

/// A machine on which all is well, as far as a test can arrange that.
struct Patient(TempDir);

/// What the doctor said.
struct Findings {
    text: String,
    code: Option<i32>,
}

impl Patient {
    fn new() -> Patient {
        let directory = TempDir::new();
        fs::create_dir(directory.path().join("functions")).expect("a new directory");
        fs::write(directory.path().join("functions/hello.wat"), guest::hello()).expect("a new file");
        Patient(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// In this patient's directory; flags of the test come last and override.
    fn doctor(&self, flags: &[&str], environment: &[(&str, &str)]) -> Findings {
        let given = |name: &str| flags.iter().any(|flag| flag.starts_with(&format!("{name}=")));
        let defaults =
            ["--port=0", "--admin-port=0", "--host=127.0.0.1", "--admin-host=127.0.0.1", "--cache-dir=cache"];
        let mut command = Command::new(workspace::wasmbox());
        command.arg("doctor");
        command.args(defaults.iter().filter(|default| !given(default.split('=').next().unwrap_or_default())));
        command.args(flags).env_clear().envs(environment.iter().copied());
        Findings::of(command.current_dir(self.0.path()))
    }
}

impl Findings {
    fn of(command: &mut Command) -> Findings {
        let Output { stdout, stderr, status } = command.stdin(Stdio::null()).output().expect("it runs");
        assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
        Findings { text: String::from_utf8(stdout).expect("text"), code: status.code() }
    }

    /// The finding of a check: its status, and the rest of its one line.
    fn finding(&self, check: &str) -> (&str, &str) {
        let mut lines = self.text.lines().filter_map(|line| {
            let (status, rest) = line.split_at_checked(6)?;
            Some((status.trim(), rest.strip_prefix(check)?.strip_prefix("  ")?.trim()))
        });
        let finding = lines.next().unwrap_or_else(|| panic!("{check} is not in\n{}", self.text));
        assert!(lines.next().is_none(), "{check} is twice in\n{}", self.text);
        finding
    }

    /// The check failed, with these parts in its line, and so did the command.
    fn fails(&self, check: &str, parts: &[&str]) {
        let (status, rest) = self.finding(check);
        assert_eq!((status, self.code), ("FAIL", Some(1)), "{}", self.text);
        let (_, remedy) = rest.split_once(" -> ").unwrap_or_else(|| panic!("no remedy: {rest}"));
        assert!(!remedy.is_empty());
        for part in parts {
            assert!(rest.contains(part), "{part} is not in {rest}");
        }
    }
}

#[test]
fn a_line_for_each_check_and_a_remedy_for_each_trouble() {
    let patient = Patient::new();
    let findings = patient.doctor(&[], &[]);
    let checks: Vec<&str> = findings.text.lines().collect();
    let (last, checks) = checks.split_last().expect("lines");
    assert!(checks.len() >= 16, "{}", findings.text);
    assert!(last.starts_with(&format!("{} checks, ", checks.len())), "{last}");
    for check in checks {
        match check.split_at(4).0.trim() {
            "ok" => assert!(!check.contains(" -> "), "{check}"),
            "warn" | "FAIL" => assert!(check.contains(" -> "), "{check}"),
            other => panic!("{other:?} of {check:?}"),
        }
    }
    let failed = checks.iter().any(|check| check.starts_with("FAIL"));
    assert_eq!(findings.code, Some(i32::from(failed)), "{}", findings.text);
    assert!(findings.finding("kernel").1.starts_with("Linux "));
    assert_eq!(findings.finding("functions"), ("ok", &*format!("{}, 1 files", patient.path("functions"))));
    assert_eq!(findings.finding("cache"), ("ok", &*format!("{}, will be made", patient.path("cache"))));
    assert!(!patient.0.path().join("cache").exists(), "it only looks");
    for check in ["port", "admin port"] {
        assert_eq!(findings.finding(check).0, "ok", "{}", findings.text);
    }
    // Where cgroups are demanded, a trouble with them is a failure; where they are not wanted, they are left alone.
    assert_eq!(patient.doctor(&["--enable-cgroups=false"], &[]).finding("quotas").0, "ok");
    let flags = ["--enable-cgroups=true", "--cgroup-root=functions"];
    patient.doctor(&flags, &[]).fails("quotas", &["functions is no cgroup file system", "CGROUP_ROOT"]);
    assert_eq!(patient.doctor(&flags[1..], &[]).finding("quotas").0, "warn");
    // A box needs nothing of a node. What is found on one, tests/ctr.rs says.
    assert_eq!(findings.finding("containerd").0, "ok");
}

#[test]
fn directories() {
    let patient = Patient::new();
    patient
        .doctor(&["--functions-dir=/nowhere/functions"], &[])
        .fails("functions", &["/nowhere/functions", "No such file", "--functions-dir", "FUNCTIONS_DIR"]);
    patient.doctor(&["--functions-dir=functions/hello.wat"], &[]).fails("functions", &["is not a directory"]);
    fs::create_dir(patient.0.path().join("empty")).expect("a new directory");
    let findings = patient.doctor(&["--functions-dir=empty"], &[]);
    let (status, found) = findings.finding("functions");
    assert!(status == "warn" && found.contains("no function") && found.contains(".wasm"), "{found}");
    // A cache that others may write; one that cannot be.
    fs::create_dir(patient.0.path().join("open")).expect("a new directory");
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(patient.0.path().join("open"), mode).expect("the directory is ours");
    patient.doctor(&["--cache-dir=open"], &[]).fails("cache", &["mode 777", "0700", "--cache-dir", "CACHE_DIR"]);
    patient.doctor(&["--cache-dir=functions/hello.wat/cache"], &[]).fails("cache", &["Not a directory"]);
    assert_eq!(patient.doctor(&["--cache-dir=none"], &[]).finding("cache").0, "ok");
    // One that this user cannot make; the default one is not needed.
    let locked = patient.0.path().join("locked");
    fs::create_dir(&locked).expect("a new directory");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).expect("the directory is ours");
    let cannot_be_made = format!("{0}/cache/wasmbox cannot be made in {0}", locked.display());
    let as_other = |flags: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(workspace::wasmbox());
        command.args(["doctor", "--port=0", "--admin-port=0"]).args(flags);
        command.env_clear().envs(environment.iter().copied()).current_dir(patient.0.path());
        // Root may write anywhere.
        if rustix::process::geteuid().is_root() {
            command.uid(65534);
        }
        Findings::of(&mut command)
    };
    let flag = format!("--cache-dir={}/cache/wasmbox", locked.display());
    as_other(&[&flag], &[]).fails("cache", &[&cannot_be_made, "CACHE_DIR"]);
    let findings = as_other(&[], &[("XDG_CACHE_HOME", &format!("{}/cache", locked.display()))]);
    let (status, found) = findings.finding("cache");
    assert!(status == "warn" && found.starts_with(&cannot_be_made), "{found}");
}

#[test]
fn ports() {
    let patient = Patient::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port().to_string();
    // It is asked whether it is a box, and says nothing: dropped at once instead of waiting.
    let silent = std::thread::spawn(move || taken.incoming().take(2).for_each(drop));
    for (flag, check, variable) in
        [("--port", "port", "WEBSERVER_PORT"), ("--admin-port", "admin port", "HEALTHCHECK_PORT")]
    {
        patient
            .doctor(&[&format!("{flag}={port}")], &[])
            .fails(check, &[&port, "in use, not by a box", flag, variable]);
    }
    silent.join().expect("it was asked twice");
    patient.doctor(&["--host=192.0.2.1"], &[]).fails("port", &["192.0.2.1", "--port"]);
    // A box that runs is well, and is left alone.
    let server = WasmBox::with("hello.wat", guest::hello());
    let (port, admin) = (server.address().port().to_string(), server.admin_address().port().to_string());
    let findings = patient.doctor(&[&format!("--port={port}"), &format!("--admin-port={admin}")], &[]);
    for check in ["port", "admin port"] {
        let (status, found) = findings.finding(check);
        assert!(status == "ok" && found.contains("in use by a box that runs"), "{found}");
    }
    assert!(findings.finding("admin port").1.contains(&server.process().0.to_string()));
    server.get("/hello").ok();
}

#[test]
fn limits_of_the_process() {
    let patient = Patient::new();
    let limited = |limit: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("ulimit {limit} && exec \"$0\" doctor --port=0 --admin-port=0 --cache-dir=none")]);
        Findings::of(command.arg(workspace::wasmbox()).env_clear().current_dir(patient.0.path()))
    };
    let findings = limited("-v 80000000");
    findings.fails("addresses", &["81920000000", "ulimit -v unlimited", "LimitAS"]);
    findings.fails("mappings", &["1000 invocations", "--max-invocations"]);
    let findings = limited("-n 100");
    let (status, found) = findings.finding("open files");
    assert_eq!(status, "warn", "{found}");
    for part in ["at most 100", "8192 connections", "ulimit -Hn", "LimitNOFILE", "--max-connections"] {
        assert!(found.contains(part), "{part} is not in {found}");
    }
}

/// What a box gives up at its start is tried, and nothing of it is missed by the checks that follow.
#[test]
fn what_a_box_gives_up() {
    let patient = Patient::new();
    let server = WasmBox::with("hello.wat", guest::hello());
    let line = server.logged(&["serving", "given_up="]);
    let given_up = line.split_once("given_up=").and_then(|(_, rest)| rest.split_once(", capabilities")).expect("all").0;
    assert!(given_up.starts_with("no_new_privs, Landlock ") && given_up.ends_with(", seccomp"), "{line}");
    for whether in ["auto", "true"] {
        let findings = patient.doctor(&[&format!("--confine={whether}")], &[]);
        let expected = format!("given up at the start: {given_up}, capabilities");
        assert_eq!(findings.finding("confine"), ("ok", &*expected), "{}", findings.text);
        for check in ["functions", "cache", "port"] {
            assert_eq!(findings.finding(check).0, "ok", "{}", findings.text);
        }
    }
    let findings = patient.doctor(&[], &[("CONFINE", "false")]);
    assert_eq!(findings.finding("confine"), ("ok", "nothing is given up, as configured"));
}

#[test]
fn settings_that_are_wrong_are_named_as_at_the_start() {
    let mut command = Command::new(workspace::wasmbox());
    let output = command.args(["doctor", "--max-invocations=0"]).env_clear().output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "wasmbox: --max-invocations 0: expected 1 to 10000\n");
}
