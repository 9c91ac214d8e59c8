//! The commands in the documents, as they are written there: each block of them is run by a test here, or by what [`elsewhere`] names.
//!
//! - [`newcomer`]: the README from its top, in one shell
//! - [`small`]: blocks that take a box, a project or a file; [`errors`]: the examples of docs/errors.md
//! - [`machines`]: those that take containerd, a virtual machine or a registry

mod elsewhere;
mod errors;
mod machines;
mod newcomer;
mod small;

use elsewhere::{BY_CLUSTER_TEST, ELSEWHERE};
use wasmbox_tests::{
    document::{self, Block},
    workspace,
};

/// Tests that follow blocks, which are named by how their first commands begin, or by their headings.
macro_rules! followed {
    ($($(#[$attribute:meta])* $test:ident($($file:literal: [$($key:literal),+ $(,)?]),+): $follow:path;)*) => {
        $($(#[$attribute])* #[test]
        fn $test() {
            $follow(&[$(document::named($file, &[$($key),+])),+].concat());
        })*
        const FOLLOWED: &[(&str, &[&str])] = &[$($(($file, &[$($key),+])),+),*];
    };
}

followed! {
    the_readme_is_followed_from_its_top(
        "README.md": [
            "make run", "curl 'localhost:8095/rust-hello", "export PATH=", "wasmbox invoke hello", "curl localhost:8095/hello -H 'Memory",
            "mkdir -p functions", "wasmbox push hello.wasm --token-file",
        ]
    ): newcomer::from_the_top;
    the_readme_runs_containers(
        "README.md": ["make static images", "echo some text | sudo ctr"], "runtimeclass/README.md": ["for pid in"]
    ): machines::with_containerd;
    contributors_use_the_virtual_machine("CONTRIBUTING.md": ["tests/vm/run.sh -- sh"]): machines::in_the_virtual_machine;
    a_sending_side_is_closed("docs/api.md": ["printf 'GET"]): small::at_a_box;
    the_api_takes_a_function("docs/api.md": ["curl -T hello.wasm"]): small::at_a_box_with_a_token;
    the_machine_is_checked("docs/installing.md": ["wasmbox doctor"]): small::with_a_module;
    operators_trace_probe_and_measure(
        "docs/operations.md": ["wasmbox serve --otlp-endpoint", "curl localhost:8086/ready", "wasmbox run --cache-dir none"]
    ): small::with_a_module;
    operators_look_at_a_box("docs/operations.md": ["wasmbox status", "wasmbox top"]): small::at_a_busy_box;
    operators_check_a_machine("docs/operations.md": ["wasmbox doctor --cache-dir"]): small::with_an_open_cache;
    operators_put_functions_into_a_box("docs/operations.md": ["openssl rand"]): small::with_a_module;
    cron_calls_a_function("docs/schedules.md": ["curl --silent"]): small::at_a_box;
    authors_make_a_function("docs/writing-functions.md": ["wasmbox new", "wasmbox invoke"]): small::beside_the_build;
    authors_keep_values("docs/writing-functions.md": ["make -C examples", "curl -s localhost:8095/counter"]): small::with_the_examples;
    authors_push_a_function("docs/writing-functions.md": ["wasmbox build &&"]): small::in_a_project_beside_a_box;
    authors_need_no_project("docs/writing-functions.md": ["rustup target add"]): small::in_a_project_beside_a_box;
    a_project_says_what_to_do("runtime-http/templates/common/README.md": ["wasmbox dev"]): small::in_a_project;
    the_examples_are_called("examples/README.md": ["make  ", "curl 'localhost:8095/image-blur"]): small::among_the_examples;
    errors_of_requests_and_functions(
        "docs/errors.md": [
            "bad-request", "bad-module-name", "bad-limit", "bad-argument", "body-unreadable", "length-required", "module-not-found",
            "method-not-allowed", "module-invalid", "guest-exit", "guest-trap", "guest-memory-limit", "guest-no-response",
            "not-implemented", "deadline-exceeded", "uploads-off",
        ]
    ): errors::at_a_box;
    errors_of_bounds(
        "docs/errors.md": ["exceeds-capacity", "body-too-large", "guest-output-limit", "guest-bad-header", "preopen-unavailable"]
    ): errors::at_a_narrow_box;
    errors_of_uploads(
        "docs/errors.md": ["unauthorized", "version-not-found", "precondition-failed", "functions-full"]
    ): errors::at_a_box_with_a_token;
    #[ignore = "needs Go: make e2e"]
    functions_go_through_a_registry(
        "README.md": ["wasmbox push hello.wasm oci:"], "docs/registries.md": ["wasmbox push functions/hello.wasm", "cosign generate-key-pair"]
    ): machines::with_a_registry;
}

/// Each block is in one of the lists, and only those that there are.
#[test]
fn each_command_is_run_somewhere() {
    let all = document::all();
    assert!(all.len() > 100, "{} blocks", all.len());
    let mut places = vec![0; all.len()];
    let lists = FOLLOWED.iter().copied().chain(ELSEWHERE.iter().map(|(file, keys, _)| (*file, *keys)));
    for (file, key) in lists.flat_map(|(file, keys)| keys.iter().map(move |key| (file, *key))) {
        let is_meant = |block: &Block| block.file == file && (key == "*" || block.is(key));
        let meant: Vec<usize> = (0..all.len()).filter(|&index| is_meant(&all[index])).collect();
        assert!(!meant.is_empty(), "{file} has no block that begins with {key:?}");
        for index in meant {
            places[index] += 1;
        }
    }
    for (block, places) in all.iter().zip(places) {
        let (file, heading, first) = (&block.file, &block.heading, block.first());
        assert_ne!(
            places, 0,
            "{file}, {heading}: no test runs {first:?}; elsewhere.rs says where others run, or why not"
        );
        assert_eq!(places, 1, "{file}, {heading}: {first:?} is in {places} places");
    }
}

/// The tests of the cluster take their blocks out of the document by its headings and a text.
#[test]
fn the_cluster_runs_what_it_is_said_to_run() {
    let directory = workspace::root().join("tests/cluster");
    let sources: String = std::fs::read_dir(directory)
        .expect("the tests of the cluster")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "go"))
        .map(|path| std::fs::read_to_string(path).expect("a source"))
        .collect();
    let calls = sources.split("commands(t, document, \"").skip(1);
    let run: Vec<(&str, &str)> = calls
        .map(|call| {
            let mut texts = call.split('"');
            (texts.next().expect("a heading"), texts.nth(1).expect("a text"))
        })
        .collect();
    let blocks = document::blocks("docs/kubernetes.md");
    let (_, keys, _) = ELSEWHERE.iter().find(|(_, _, place)| *place == BY_CLUSTER_TEST).expect("its blocks");
    for key in *keys {
        let is_run = |block: &Block| {
            let all: Vec<&str> = block.steps.iter().map(|step| &*step.command).collect();
            run.iter().any(|(heading, text)| block.heading == *heading && all.join("\n").contains(text))
        };
        for block in blocks.iter().filter(|block| block.is(key)) {
            assert!(is_run(block), "no test of the cluster runs {key:?}: {block:?}");
        }
    }
}
