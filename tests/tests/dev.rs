//! `wasmbox dev`: builds, serves, builds again, and shows what happens.

use std::{fs, net::TcpListener, process::Command, thread, time::Duration};

use rustix::process::Signal;
use wasmbox_tests::{
    eventually, guest,
    process::Process,
    project::{Project, output},
    workspace,
};

/// A function whose build copies it.
fn copied(source: impl AsRef<[u8]>) -> Project {
    let settings = "[build]\ncommand = 'echo building; cp src/f.wat made.wat'\noutput = 'made.wat'\nwatch = ['src']\n";
    let project = Project::with_settings("f", settings);
    project.write("src/f.wat", source);
    project
}

fn printing(text: &str) -> String {
    guest::printing(text, "")
}

#[test]
fn what_changes_is_built_and_served() {
    let project = copied(printing("first"));
    let dev = project.dev(&[]);
    dev.said("f: built in ");
    dev.answers("/f", "first");
    dev.said("f.wat: compiled in");
    for text in ["second", "third"] {
        project.write("src/f.wat", printing(text));
        dev.answers("/f", text);
    }
    // A directory below, and a file that was not there.
    let builds = || dev.log().matches("f: built in ").count();
    let before = builds();
    project.write("src/deep/new", "");
    // On a slow machine it is two: of the directory, and of what is in it.
    let before = eventually("another build, and no further one", || {
        let now = builds();
        thread::sleep(Duration::from_secs(1));
        (now > before && builds() == now).then_some(now)
    });
    // Nobody watches these.
    project.write("README.md", "");
    project.write("src/.f.wat.swp", "");
    fs::read(project.path().join("src/f.wat")).expect("the file is there");
    project.write("src/f.wat", printing("last"));
    dev.answers("/f", "last");
    eventually("it is said", || (builds() > before).then_some(()));
    assert_eq!(builds(), before + 1, "{}", dev.log());
}

#[test]
fn the_functions_own_files_need_no_build() {
    let project = Project::with_settings("f", "args = ['one']\n");
    project.write("functions/f.wat", guest::arguments());
    let dev = project.dev(&[]);
    dev.said(&format!("http://{}/f", dev.address()));
    dev.answers("/f", "f\0one\0\n\n");
    project.write("functions/f.toml", "args = ['two']\n");
    dev.answers("/f", "f\0two\0\n\n");
    // What is wrong is said without a call.
    project.write("functions/f.wat", "(module (nonsense))");
    dev.said("f.wat: not compiled");
    dev.said("nonsense");
    project.write("functions/f.toml", "arg = ['two']\n");
    dev.said("`arg`: did you mean `args`?");
    project.write("functions/f.toml", "");
    project.write("functions/f.wat", printing("right"));
    dev.answers("/f", "right");
}

#[test]
fn a_build_that_fails_leaves_what_was_served() {
    let project = copied(printing("right"));
    let dev = project.dev(&[]);
    dev.answers("/f", "right");
    let before = dev.log().len();
    project.replace("functions/f.toml", "echo building", "echo wrong >&2; exit 3");
    dev.said_after(before, "wrong");
    let failure = dev.said_after(before, "f: the build failed: ");
    assert!(failure.ends_with(": exit code 3; the last good build still serves"), "{failure}");
    assert_eq!(dev.post("/f", "").ok().text(), "right");
    // Settings that cannot be read, and meanwhile another source.
    project.replace("functions/f.toml", "output", "outputs");
    dev.said("`outputs`: did you mean `output`?");
    project.write("src/f.wat", printing("new"));
    project.replace("functions/f.toml", "outputs", "output");
    project.replace("functions/f.toml", "exit 3", "true");
    project.replace("functions/f.toml", "; true", "; cp src/f.wat made.wat; true");
    dev.answers("/f", "new");
    let mended = dev.said_after(before, "; the new build serves");
    assert!(mended.starts_with("f: built in "), "{mended}");
    // What was not broken is not mended.
    let before = dev.log().len();
    project.write("src/f.wat", printing("newest"));
    assert!(dev.said_after(before, "f: built in ").ends_with(" s"), "{}", dev.log());
}

#[test]
fn it_says_what_is_answered_until_the_first_build() {
    let project = copied(printing("first"));
    project.replace("functions/f.toml", "echo building", "until [ -e go ]; do sleep 0.1; done; cat go; exit $(cat go)");
    project.write("functions/g.wat", printing("no build"));
    let dev = project.dev(&[]);
    dev.said(&format!("http://{}/f  being built; answers 404 until then", dev.address()));
    assert!(dev.said("/g").ends_with("/g"), "{}", dev.log());
    dev.post("/f", "").problem(404, "module-not-found");
    project.write("go", "7");
    assert!(dev.said("f: the build failed: ").ends_with(": exit code 7; it answers 404 until a build succeeds"));
    project.write("go", "0");
    project.replace("functions/f.toml", "; exit $(cat go)", "");
    dev.answers("/f", "first");
    assert!(dev.said("f: built in ").ends_with("; the new build serves"), "{}", dev.log());
    drop(dev);
    let dev = project.dev(&[]);
    dev.said("/f  being built; the last good build serves until then");
    dev.said("f: built in ");
}

#[test]
fn what_is_wrong_is_said_once_until_its_file_changes() {
    let project = Project::with_settings("typo", "arg = ['two']\n");
    project.write("functions/bad.wat", "(module (nonsense))");
    project.write("functions/good.wat", printing("0"));
    let dev = project.dev(&[]);
    let said = |part: &str| dev.log().matches(part).count();
    let (typo, bad, good) = ("`arg`: did you mean `args`?", "bad.wat: not compiled", "good.wat: compiled in");
    let count = |part: &str, times: usize| eventually(part, || (said(part) >= times).then_some(()));
    count(good, 1);
    // A check tells of `bad` first.
    for times in 2..5 {
        project.write("functions/good.wat", printing(&times.to_string()));
        count(good, times);
    }
    assert_eq!((said(typo), said(bad), said("nonsense")), (1, 1, 1), "{}", dev.log());
    project.write("functions/bad.wat", "(module (nonsense))");
    count(bad, 2);
    assert_eq!(said(typo), 1, "{}", dev.log());
    project.write("functions/typo.toml", "arg = ['two']\n");
    count(typo, 2);
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let project = copied(printing("first"));
    project.replace("functions/f.toml", "['src']", "['src', 'more']");
    let dev = project.dev(&[]);
    dev.said("more cannot be watched");
    dev.answers("/f", "first");
    let before = dev.log().len();
    project.write("more/file", "");
    // It is not told when it is watched, so it is changed until then.
    eventually("a build after a change of `more`", || {
        fs::write(project.path().join("more/file"), "changed").expect("a file");
        dev.log()[before..].contains("building").then_some(())
    });
    assert_eq!(dev.log().matches("more cannot be watched").count(), 1, "said once: {}", dev.log());
}

#[test]
fn calls_and_what_functions_say() {
    let complains = "(call $copy (i32.const 0) (i32.const 2)) ";
    let project = Project::with_settings("good", "");
    project.write("functions/good.wat", guest::command(complains));
    project.write("functions/bad.wat", guest::command("unreachable"));
    let dev = project.dev(&["--color=always"]);
    dev.post("/good", "said\u{1b}[2J\nmore").ok();
    let line = dev.said("cpu ");
    for part in ["\u{1b}[1mgood\u{1b}[0m", "\u{1b}[32m200\u{1b}[0m", " ms  cpu ", "memory 192.0 KiB"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    dev.said("\u{1b}[35msaid\\u{1b}[2J\u{1b}[0m");
    dev.said("\u{1b}[35mmore\u{1b}[0m");
    dev.post("/bad", "").problem(500, "guest-trap");
    dev.said("\u{1b}[31m500 guest-trap\u{1b}[0m");
    dev.said("unreachable");
    dev.post("/none", "").problem(404, "module-not-found");
    dev.said("\u{1b}[33m404 module-not-found\u{1b}[0m");
    drop(dev);
    // Not where nobody sees them.
    let dev = project.dev(&[]);
    dev.post("/good", "").ok();
    dev.said("good  200  ");
    assert!(!dev.log().contains('\u{1b}'), "{:?}", dev.log());
}

#[test]
fn it_ends_with_all_that_it_has_started() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let project = copied(printing("first"));
        project.replace("functions/f.toml", "echo building", "sleep 1000 & echo $! > started; wait; true");
        let mut dev = project.dev(&[]);
        let sleeper = eventually("the build's child", || {
            fs::read_to_string(project.path().join("started")).ok()?.trim().parse().ok().map(Process)
        });
        assert!(sleeper.is_running());
        assert_eq!(dev.end(signal).code(), Some(0), "{signal:?}");
        dev.is_gone();
    }
    // It cannot do anything then, but the box can.
    let project = Project::with_settings("f", "");
    project.write("functions/f.wat", printing("first"));
    let mut dev = project.dev(&[]);
    dev.answers("/f", "first");
    dev.said("f.wat: compiled in");
    assert_eq!(dev.end(Signal::KILL).code(), None);
    dev.is_gone();
}

#[test]
fn it_says_why_it_does_not_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port().to_string();
    let project = Project::with_settings("f", "");
    let dev = |arguments: &[&str]| {
        let mut command: Command = project.command(workspace::wasmbox(), &["dev"]);
        let ran = output(command.args(arguments), b"");
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        String::from_utf8(ran.stderr).expect("text")
    };
    let said = dev(&["--port", &port, "--admin-port=0"]);
    assert!(said.contains("in use") && said.contains("--port"), "{said}");
    let said = dev(&["--port=0", "--admin-port=0", "--", "--memory-limit=little"]);
    assert!(said.contains("--memory-limit"), "{said}");
    let said = dev(&["src"]);
    assert!(said.contains("src: "), "{said}");
    let said = dev(&["functions"]);
    assert!(said.contains("wasmbox new NAME --lang LANGUAGE"), "{said}");
}
