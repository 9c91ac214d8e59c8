//! What the command line says of itself: help, manual pages, completions, errors and their codes.

use std::{fs, process::Command};

use wasmbox_tests::{temporary::TempDir, workspace};

use super::{output, text, wasmbox};

/// By its code, and by the type of an answer.
#[test]
fn explain_has_a_section_for_each_code() {
    let explain = |arguments: &[&str]| output(wasmbox(&[&["explain"], arguments].concat()), b"");
    let listed = explain(&[]);
    assert_eq!(listed.status.code(), Some(0), "{listed:?}");
    let mut codes: Vec<&str> = text(&listed.stdout).lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let document = fs::read_to_string(workspace::root().join("docs/errors.md")).expect("the document");
    let sections: Vec<(&str, &str)> =
        document.split("\n## ").skip(1).map(|section| section.split_once('\n').expect("a heading")).collect();
    let mut headings: Vec<&str> = sections.iter().map(|(heading, _)| *heading).collect();
    codes.sort_unstable();
    headings.sort_unstable();
    assert_eq!(codes, headings);
    for (code, section) in sections {
        for name in [code.to_owned(), format!("urn:wasmbox:problem:{code}")] {
            let ran = output(wasmbox(&["explain", &name]), b"");
            assert_eq!(ran.status.code(), Some(0), "{ran:?}");
            assert_eq!(text(&ran.stdout), format!("{code}\n\n{}\n", section.trim().replace("**", "")));
        }
    }
    for (wrong, nearest) in [("guest-trapp", "guest-trap"), ("queue-ful", "queue-full"), ("bad_limit", "bad-limit")] {
        let ran = explain(&[wrong]);
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains(&format!("'{nearest}'")), "{ran:?}");
    }
}

#[test]
fn unknown_flags_name_the_nearest() {
    for (wrong, nearest) in [
        (["serve", "--functions"], "--functions-dir"),
        (["serve", "--admin-prt"], "--admin-port"),
        (["doctor", "--cache"], "--cache-dir"),
        (["run", "--memory"], "--memory-request"),
        (["status", "--admin"], "--admin-port"),
    ] {
        let ran = output(wasmbox(&wrong), b"");
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains(&format!("'{nearest}'")), "{ran:?}");
    }
}

#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = output(wasmbox(&["completions", shell]), b"");
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        assert!(text(&ran.stdout).contains("functions-dir"), "{shell}");
        // The scripts of the other shells know no values of arguments without a flag.
        if ["bash", "zsh"].contains(&shell) {
            assert!(text(&ran.stdout).contains("guest-no-response"), "{shell}");
            assert!(text(&ran.stdout).contains("assemblyscript"), "{shell}");
        }
    }
    let script = output(wasmbox(&["completions", "bash"]), b"").stdout;
    let mut bash = Command::new("bash");
    bash.arg("-n");
    let checked = output(bash, &script);
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    assert_eq!(output(wasmbox(&["completions", "tcsh"]), b"").status.code(), Some(2));
}

/// A page for each command that is not hidden.
#[test]
fn man_pages() {
    let directory = TempDir::new();
    let pages = directory.path().join("new/man1");
    let ran = output(wasmbox(&["man", &pages.display().to_string()]), b"");
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let mut names: Vec<String> = fs::read_dir(&pages)
        .expect("the directory was made")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let commands = [
        "build",
        "compile",
        "completions",
        "dev",
        "doctor",
        "explain",
        "invoke",
        "list",
        "logs",
        "new",
        "pull",
        "push",
        "rm",
        "rollback",
        "run",
        "serve",
        "status",
        "top",
    ];
    let mut expected: Vec<String> = commands.iter().map(|command| format!("wasmbox-{command}.1")).collect();
    expected.push("wasmbox.1".into());
    assert_eq!(names, expected);
    let page = fs::read_to_string(pages.join("wasmbox-serve.1")).expect("the page");
    for part in [".TH wasmbox-serve 1", "functions\\-dir", "WEBSERVER_PORT", "SIGTERM"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let ran = output(wasmbox(&["man", "/dev/null"]), b"");
    assert_eq!(ran.status.code(), Some(1));
    assert!(text(&ran.stderr).contains("/dev/null: "), "{ran:?}");
}

#[test]
fn help_teaches() {
    let help = |arguments: &[&str]| {
        let ran = output(wasmbox(arguments), b"");
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        text(&ran.stdout).to_owned()
    };
    let overview = help(&["--help"]);
    for part in [
        "new",
        "dev",
        "build",
        "invoke",
        "serve",
        "run",
        "compile",
        "status",
        "doctor",
        "explain",
        "completions",
        "curl ",
        "wasmbox run functions/hello.wasm",
        "environment",
    ] {
        assert!(overview.contains(part), "{part} is not in {overview}");
    }
    let serve = help(&["serve", "--help"]);
    for part in [
        "Cpu-Quota",
        "Memory-Request",
        "Invocation-Timeout",
        "NAME.toml",
        "SIGTERM",
        "8095",
        "8086",
        "WEBSERVER_PORT",
        "HEALTHCHECK_PORT",
        "MEMORY_LIMIT",
        "TRUST_PRECOMPILED",
        "WASM_RUNTIME",
        "LOG_LEVEL",
        "READINESS_UTILIZATION_TRESHOLD",
        "QP_HOST",
        "--config",
    ] {
        assert!(serve.contains(part), "{part} is not in {serve}");
    }
    let run = help(&["run", "--help"]);
    for part in ["134", "124", "137", "--env", "--dir", "--memory-request"] {
        assert!(run.contains(part), "{part} is not in {run}");
    }
    for (command, parts) in [
        (
            "status",
            &[
                "--address",
                "--admin-host",
                "--admin-port",
                "--json",
                "--watch",
                "HEALTHCHECK_PORT",
                "8086",
                "kubectl exec",
                "Exit code 1",
            ][..],
        ),
        ("doctor", &["ok", "warn", "FAIL", "Exit code 1", "--functions-dir", "CACHE_DIR"]),
    ] {
        let text = help(&[command, "--help"]);
        for part in parts {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
    assert!(help(&["--version"]).starts_with("wasmbox "));
    // Without a command, or with a wrong one, it says which there are.
    for wrong in [&[][..], &["sevre"]] {
        let ran = output(wasmbox(wrong), b"");
        assert_eq!(ran.status.code(), Some(2), "{ran:?}");
        assert!(text(&ran.stderr).contains("serve"), "{ran:?}");
    }
}
