//! Blocks of commands that the tests of this binary do not run: what else runs them, or why nothing does.

pub const BY_CLUSTER_TEST: &str = "make cluster-test runs it as it is written";

const BY_TUTORIALS: &str = "tests/tests/tutorials.rs runs it as it is written; make languages, if it takes a compiler that make test does not have";
const SYSTEMD: &str =
    "it needs systemd: tests/tests/systemd installs and starts the same service, in a virtual machine";
const TIMER: &str =
    "it needs systemd: tests/tests/systemd installs the same units, and lets the timer call, in a virtual machine";
const BY_ERRORS: &str = "tests/tests/errors or tests/tests/upload makes what it takes: a box that is full, that ends, whose disk is full, another user";
const BY_LANGUAGES: &str =
    "tests/tests/languages.rs makes it, and calls an API of its own, where the document names one on the Internet";
const BY_DEPLOY_TEST: &str = "make deploy-test renders the chart with these values, and validates the manifest; make cluster-test runs some of it";
const TESTS: &str = "it runs tests: these very ones, or those of make cluster-test";
const MEASURES: &str = "it measures for many minutes, alone on a machine: make bench";
const PACKAGES: &str =
    "it changes the machine's packages: make packages installs the package in a directory, and removes it";
const INSTALLS: &str = "it changes the machine; make test builds both, and make packages installs both in a directory";
const EDITOR: &str = "it opens an editor";
const INTERNET: &str = "it needs a registry, a browser of logs or a compiler's download on the Internet";
const OTHER_MACHINE: &str = "it needs the cross-compiler for the other architecture: a release is made so";

/// Document, blocks by how their first commands begin or by their headings (`*`: all), place or reason.
pub const ELSEWHERE: &[(&str, &[&str], &str)] = &[
    ("CONTRIBUTING.md", &["cargo test", "make cluster-test"], TESTS),
    ("CONTRIBUTING.md", &["tests/vm/run.sh --systemd"], "tests/tests/systemd starts the same machine"),
    ("benches/README.md", &["*"], MEASURES),
    (
        "docs/errors.md",
        &[
            "module-precompiled-untrusted",
            "internal",
            "queue-full",
            "queue-timeout",
            "draining",
            "evicted",
            "compiling",
            "function-conflict",
            "uploads-busy",
            "disk-full",
        ],
        BY_ERRORS,
    ),
    ("docs/events.md", &["*"], BY_TUTORIALS),
    ("docs/installing.md", &["sudo apt install"], PACKAGES),
    ("docs/installing.md", &["make build"], INSTALLS),
    ("docs/installing.md", &["sudo cp functions/hello.wasm"], SYSTEMD),
    ("docs/installing.md", &["sudo systemctl edit"], EDITOR),
    (
        "docs/kubernetes.md",
        &[
            "make static",
            "kubectl apply -k deployment/node",
            "kubectl apply -f deployment/functions/single-node.yaml",
            "helm install wasmbox",
            "kubectl get pods -A",
            "Stock",
            "kubectl delete hpa",
            "kubectl rollout restart",
            "kubectl delete -k deployment/single-node",
            "kubectl delete pod wasmbox-publish",
        ],
        BY_CLUSTER_TEST,
    ),
    ("docs/kubernetes.md", &["docker buildx"], INTERNET),
    ("docs/kubernetes.md", &["The resource-aware fork", "helm upgrade wasmbox"], BY_DEPLOY_TEST),
    ("docs/kubernetes.md", &["kubectl create secret", "wasmbox push --image"], BY_DEPLOY_TEST),
    ("docs/releasing.md", &["*"], OTHER_MACHINE),
    (
        "docs/runbook.md",
        &["kubectl exec POD"],
        "make cluster-test runs the same commands in a pod (TestCluster/kubectl)",
    ),
    ("docs/schedules.md", &["kubectl apply"], BY_DEPLOY_TEST),
    ("docs/schedules.md", &["sudo systemctl enable"], TIMER),
    ("docs/tutorials/assemblyscript.md", &["*"], BY_TUTORIALS),
    ("docs/tutorials/c.md", &["*"], BY_TUTORIALS),
    ("docs/tutorials/go.md", &["*"], BY_TUTORIALS),
    ("docs/tutorials/js.md", &["*"], BY_TUTORIALS),
    ("docs/tutorials/python.md", &["wasmbox new", "wasmbox dev", "wasmbox build", "curl", "sed -i"], BY_TUTORIALS),
    ("docs/tutorials/python.md", &["echo 'inflection"], INTERNET),
    ("docs/tutorials/rust.md", &["*"], BY_TUTORIALS),
    ("docs/tutorials/wat.md", &["*"], BY_TUTORIALS),
    ("examples/README.md", &["make rust-api"], BY_LANGUAGES),
];
