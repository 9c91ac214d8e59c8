//! The same commands, by the API server of a cluster: `--service`, `--pod`, `--context`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use wasmbox_tests::{
    ApiServer, Authority, WasmBox,
    api_server::{self, Known, Objects},
    binary, guest,
    outcome::{self, good},
    workspace,
};

use super::{TOKEN, launch};

/// A Service `boxes` of the namespace `team`.
fn service(selector: Value) -> Value {
    json!({"metadata": {"namespace": "team", "name": "boxes"}, "spec": {"selector": selector}})
}

/// A pod of that Service, with the admin port where the chart has it.
fn pod(name: &str, created: &str, is_ready: bool) -> Value {
    json!({
        "metadata": {
            "namespace": "team", "name": name, "creationTimestamp": created,
            "labels": {"app.kubernetes.io/name": "wasmbox", "app.kubernetes.io/instance": "boxes"},
        },
        "spec": {"containers": [{"name": "wasmbox", "ports": [{"name": "admin", "containerPort": 9086}]}]},
        "status": {
            "phase": "Running", "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
        },
    })
}

fn selector() -> Value {
    json!({"app.kubernetes.io/name": "wasmbox", "app.kubernetes.io/instance": "boxes"})
}

/// A cluster with that Service and one pod, in which is a box that runs.
fn objects(server: &WasmBox) -> Objects {
    Objects {
        services: vec![service(selector())],
        pods: vec![pod("box-1", "2026-01-01T00:00:00Z", true)],
        listening: vec![("box-1", 9086, server.admin_address())],
        forbidden: Vec::new(),
    }
}

/// A cluster, and somebody who has a kubeconfig for it.
struct Cluster {
    server: ApiServer,
    directory: PathBuf,
}

impl Cluster {
    /// Its files are in a directory of the box's.
    fn start(of: &WasmBox, objects: Objects) -> Cluster {
        let directory = of.launched().directory().join("kube");
        fs::create_dir(&directory).expect("a directory");
        let authority = Authority::new();
        authority.write(&directory.join("ca.crt"));
        authority.write_server(&["jane"], &directory.join("jane.crt"), &directory.join("jane.key"));
        Authority::new().write(&directory.join("other.crt"));
        let cluster = Cluster { server: ApiServer::start(&authority, objects), directory };
        let credential = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": api_server::TOKEN},
        });
        cluster.write("plugin.sh", &format!("#!/bin/sh\necho '{credential}'\n"));
        cluster.write("broken.sh", "#!/bin/sh\necho 'log in first' >&2\necho a-secret\nexit 3\n");
        cluster.write("config", &cluster.kubeconfig().to_string());
        cluster
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// JSON is YAML. A context for each way in which somebody can be known; files beside it.
    fn kubeconfig(&self) -> Value {
        let script = |name: &str| {
            json!({"exec": {
                "apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": [self.path(name)],
                "interactiveMode": "Never",
            }})
        };
        let users = [
            ("certificate", json!({"client-certificate": "jane.crt", "client-key": "jane.key"})),
            ("token", json!({"token": api_server::TOKEN})),
            ("plugin", script("plugin.sh")),
            ("broken", script("broken.sh")),
            ("stranger", json!({"token": "of another cluster"})),
        ];
        let cluster = |name: &str, server: &str, authority: &str| json!({"name": name, "cluster": {"server": server, "certificate-authority": authority}});
        let context = |name: &str, cluster: &str, user: &str| json!({"name": name, "context": {"cluster": cluster, "user": user, "namespace": "team"}});
        let mut contexts: Vec<Value> = users.iter().map(|(name, _)| context(name, "cluster", name)).collect();
        contexts.push(context("distrusted", "distrusted", "token"));
        contexts.push(context("nowhere", "nowhere", "token"));
        contexts.push(context("proxied", "proxied", "token"));
        let users: Vec<Value> = users.iter().map(|(name, user)| json!({"name": name, "user": user})).collect();
        let mut proxied = cluster("proxied", &self.server.url(), "ca.crt");
        proxied["cluster"]["proxy-url"] = "http://127.0.0.1:1".into();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "certificate",
            "clusters": [
                cluster("cluster", &self.server.url(), "ca.crt"),
                cluster("distrusted", &self.server.url(), "other.crt"),
                cluster("nowhere", "https://127.0.0.1:1", "ca.crt"),
                proxied,
            ],
            "contexts": contexts,
            "users": users,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(workspace::wasmbox());
        command.args(arguments).env_clear().stdin(Stdio::null());
        command.env("KUBECONFIG", self.path("config")).env("WASMBOX_TOKEN", TOKEN);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }
}

#[track_caller]
fn refused(output: &Output, parts: &[&str]) {
    let said = outcome::refused(output, parts);
    for secret in [TOKEN, api_server::TOKEN, "a-secret"] {
        assert!(!said.contains(secret), "{said}");
    }
}

/// Somebody is known by a certificate, a token, or what a plugin says.
#[test]
fn functions_come_through_the_api_server() {
    let server = launch().start();
    let cluster = Cluster::start(&server, objects(&server));
    cluster.write("greeting.wat", &guest::arguments());
    cluster.write("greeting.toml", "args = ['one']");
    let file = cluster.path("greeting.wat");
    let said = good(&cluster.run(&["push", &file, "--service", "boxes"]));
    assert!(said.starts_with("greeting: created, with its settings") && said.contains("version 1"), "{said}");
    assert_eq!(server.get("/greeting").ok().text(), "greeting\0one\0\n\n");
    // More than a stream holds at once; and the namespace is named.
    let mut large = binary::encoded(&guest::printing("two", ""));
    large.extend(binary::custom_section("padding", &vec![b'x'; 6 << 20]));
    fs::write(cluster.path("large.wasm"), large).expect("a file");
    let file = cluster.path("large.wasm");
    let by = ["--service", "team/boxes", "--context", "token"];
    good(&cluster.run(&[&["push", &file, "--name", "greeting"], &by[..]].concat()));
    assert_eq!(server.get("/greeting").ok().text(), "two");
    let by = ["--service", "boxes", "--context", "plugin"];
    let versions = good(&cluster.run(&[&["list", "greeting"], &by[..]].concat()));
    assert_eq!(versions.lines().count(), 3, "{versions}");
    good(&cluster.run(&[&["rollback", "greeting"], &by[..]].concat()));
    assert_eq!(server.get("/greeting").ok().text(), "greeting\0one\0\n\n");
    // A pod by its name, in the kubeconfig where kubectl has it by default, and whatever WASMBOX_URL says.
    let home = cluster.directory.join(".kube");
    fs::create_dir(&home).expect("a directory");
    let config =
        cluster.kubeconfig().to_string().replace(r#""jane"#, r#""../jane"#).replace(r#""ca.crt"#, r#""../ca.crt"#);
    fs::write(home.join("config"), config).expect("a file");
    let mut command = cluster.command(&["rm", "greeting", "--purge", "--pod", "box-1"]);
    command.env_remove("KUBECONFIG").env("HOME", &cluster.directory).env("WASMBOX_URL", "http://127.0.0.1:1");
    // It is not for what is on this machine.
    command.env("HTTPS_PROXY", "http://127.0.0.1:1");
    good(&command.output().expect("it runs"));
    server.get("/greeting").problem(404, "module-not-found");
    let asked = cluster.server.asked();
    for known in [Known::Certificate, Known::Token] {
        let forwards = asked.iter().filter(|asked| asked.by == Some(known) && asked.path.contains("/portforward"));
        assert!(forwards.count() > 2, "{known:?}: {asked:?}");
    }
    assert!(asked.iter().all(|asked| asked.by.is_some()), "{asked:?}");
}

#[test]
fn what_comes_is_followed_through_the_api_server() {
    let server = launch().function("writes.wat", guest::command("(call $copy (i32.const 0) (i32.const 2))")).start();
    let cluster = Cluster::start(&server, objects(&server));
    server.post("/writes", "one").ok();
    let mut command = cluster.command(&["logs", "-f", "writes", "--service", "boxes"]);
    let mut following = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut output = BufReader::new(following.stdout.take().expect("a pipe"));
    for text in ["one", "two", "three"] {
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert!(line.ends_with(&format!(" {text}\n")), "{line}");
        match text {
            "one" => drop(server.post("/writes", "two").ok()),
            "two" => drop(server.post("/writes", "three").ok()),
            _ => {}
        }
    }
    drop(server);
    assert_eq!(following.wait().expect("it ends").code(), Some(0));
}

#[test]
fn the_oldest_box_that_is_ready_is_asked() {
    let old = launch().function("of-the-old.wat", guest::hello()).start();
    let new = launch().function("of-the-new.wat", guest::hello()).start();
    let mut objects = objects(&old);
    objects.pods = vec![
        pod("box-3", "2026-01-03T00:00:00Z", true),
        pod("box-1", "2026-01-01T00:00:00Z", false),
        pod("box-2", "2026-01-02T00:00:00Z", true),
    ];
    objects.listening = vec![("box-2", 9086, old.admin_address()), ("box-3", 9086, new.admin_address())];
    let cluster = Cluster::start(&old, objects);
    for _ in 0..2 {
        assert!(good(&cluster.run(&["list", "--service", "boxes"])).contains("of-the-old"));
    }
    assert!(good(&cluster.run(&["list", "--pod", "team/box-3"])).contains("of-the-new"));
}

#[test]
fn what_goes_wrong_on_the_way_says_what_to_do() {
    let server = launch().start();
    let mut there = objects(&server);
    let other = |document: Value, name: &str| {
        let mut document = document;
        document["metadata"]["name"] = name.into();
        document
    };
    there.services.push(other(service(Value::Null), "external"));
    there.services.push(other(service(json!({"app": "unready"})), "starting"));
    there.services.push(other(service(json!({"app": "none"})), "empty"));
    let mut starting = pod("box-0", "2026-01-01T00:00:00Z", false);
    starting["metadata"]["labels"] = json!({"app": "unready"});
    starting["status"]["phase"] = "Pending".into();
    there.pods.extend([starting, pod("closed", "2026-01-01T00:00:00Z", true)]);
    let cluster = Cluster::start(&server, there);
    let list = |arguments: &[&str]| cluster.run(&[&["list"], arguments].concat());
    let in_context = |context: &str| list(&["--service", "boxes", "--context", context]);

    // The cluster, and who asks.
    refused(&in_context("prod"), &["\"prod\"", "certificate, token, plugin, broken"]);
    refused(
        &in_context("distrusted"),
        &["TLS", &cluster.server.url(), "invalid peer certificate", "certificate-authority"],
    );
    refused(&in_context("nowhere"), &["https://127.0.0.1:1/", "refused"]);
    refused(&in_context("proxied"), &[&cluster.server.url(), "refused"]);
    refused(&in_context("stranger"), &["Unauthorized", "log in"]);
    refused(&in_context("broken"), &["broken.sh", "log in first", "users"]);
    let with_kubeconfig = |path: &str| {
        let mut command = cluster.command(&["list", "--service", "boxes"]);
        command.env("KUBECONFIG", path).output().expect("it runs")
    };
    refused(&with_kubeconfig("/nowhere/config"), &["no kubeconfig", "/nowhere/config", "KUBECONFIG"]);
    cluster.write("no-yaml", &format!("users:\n- name: x\n  user: [{}", api_server::TOKEN));
    refused(&with_kubeconfig(&cluster.path("no-yaml")), &["kubeconfig", "YAML"]);
    let mut config = cluster.kubeconfig();
    config["current-context"] = "".into();
    cluster.write("no-context", &config.to_string());
    refused(&with_kubeconfig(&cluster.path("no-context")), &["no current context", "--context", "certificate, token"]);

    // The box.
    refused(&list(&["--service", "nothing"]), &["no Service team/nothing", "kubectl get services"]);
    refused(&list(&["--service", "other/boxes"]), &["no Service other/boxes"]);
    refused(&list(&["--service", "external"]), &["team/external", "no selector", "--pod"]);
    refused(&list(&["--service", "empty"]), &["no pod", "there is none", "--selector app=none"]);
    refused(
        &list(&["--service", "starting"]),
        &["no pod", "box-0 (Pending)", "--namespace team --selector app=unready"],
    );
    refused(&list(&["--pod", "nothing"]), &["no pod team/nothing", "kubectl get pods"]);
    refused(&list(&["--pod", "closed"]), &["team/closed", "port 9086", "connection refused", "`admin`"]);

    // What was said.
    refused(&list(&["--service", "boxes", "--url", "http://127.0.0.1:1"]), &["--url", "--service"]);
    refused(&list(&["--context", "token"]), &["--context", "--service"]);
    for wrong in ["A", "a/b/c", "../x"] {
        let output = list(&["--service", wrong]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("NAMESPACE/NAME"), "{said}");
    }
    assert_eq!(list(&["--service", "boxes", "--pod", "box-1"]).status.code(), Some(2));
    let push = cluster.run(&["push", "x.wasm", "oci://127.0.0.1:1/x:1", "--service", "boxes"]);
    refused(&push, &["--service", "registry"]);
}

/// Each right is named that somebody has not.
#[test]
fn rights_that_are_missing_are_named() {
    let server = launch().start();
    for (forbidden, arguments, right) in [
        ("/services/boxes", ["--service", "boxes"], "`get services`"),
        ("/pods", ["--service", "boxes"], "`list pods`"),
        ("/pods/box-1", ["--pod", "box-1"], "`get pods`"),
        ("/portforward", ["--service", "boxes"], "`create pods/portforward`"),
    ] {
        let mut objects = objects(&server);
        objects.forbidden = vec![forbidden];
        let cluster = Cluster::start(&server, objects);
        refused(&cluster.run(&[&["list"], &arguments[..]].concat()), &["\"jane\"", right, &cluster.server.url()]);
        fs::remove_dir_all(&cluster.directory).expect("a directory");
    }
}
