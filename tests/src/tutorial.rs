//! What a document tells its reader to do, followed to the letter: the commands of its blocks marked `console` are run in their order, and what
//! they print is compared. Tutorials of `docs/tutorials`, and other documents whose commands call a box that runs.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    document::{self, Step},
    project::{Project, output},
    workspace,
};

/// A rebuild of the slowest language, on a machine that does other things, too.
const BUILD_TIME: Duration = Duration::from_secs(300);

/// Does what the tutorial of that language says.
///
/// # Panics
/// If a command fails, prints something else, or the tutorial shows other sources than `wasmbox new` writes.
pub fn follow(language: &str) {
    let file = format!("docs/tutorials/{language}.md");
    let text = fs::read_to_string(workspace::root().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let steps = steps(&file);
    assert!(steps.len() > 5, "{file} has {} commands", steps.len());
    let project = Project::nothing("hello");
    let mut directory = project.above().to_owned();
    let mut dev = None;
    for step in &steps {
        let name = format!("{file}: {}", step.command);
        if step.command == "wasmbox dev" {
            dev = Some(project.dev(&[]));
        } else if let Some(path) = step.command.strip_prefix("cd ") {
            directory.push(path);
            let (file, source) = source(&text);
            assert_eq!(project.read(file), source, "{name}: {file}");
        } else {
            let address = dev.as_ref().map_or("localhost:8095", |dev| dev.address());
            let mut command = project.command("sh", &["-c", &step.command.replace("localhost:8095", address)]);
            command.env("PATH", path()).current_dir(&directory);
            let give_up = Instant::now() + BUILD_TIME;
            loop {
                let ran = output(&mut command, b"");
                let printed = String::from_utf8_lossy(&ran.stdout);
                if ran.status.success() && (step.expected.is_empty() && dev.is_none() || step.is_met_by(&printed)) {
                    break;
                }
                // What is served is built again after a change; everything else does what it does at once.
                let waits = dev.is_some() && step.command.starts_with("curl ") && Instant::now() < give_up;
                assert!(waits, "{name}: expected {:?}: {ran:?}", step.expected);
                thread::sleep(Duration::from_millis(200));
            }
        }
    }
    let dev = dev.unwrap_or_else(|| panic!("{file} does not serve"));
    // A compiler that is interrupted would leave its temporary files.
    let is_building = || {
        let log = dev.log();
        log.matches("hello: sh build.sh").count() > log.matches("hello: built in").count()
    };
    let give_up = Instant::now() + BUILD_TIME;
    while is_building() {
        assert!(Instant::now() < give_up, "{file}: the build does not end: {}", dev.log());
        thread::sleep(Duration::from_millis(200));
    }
}

/// Runs all commands of the document, which call the box at `address`, and gives their number.
///
/// # Panics
/// If one fails, or prints something else.
pub fn call(file: &str, address: SocketAddr) -> usize {
    let steps = steps(file);
    for step in &steps {
        let mut command = Command::new("sh");
        command.args(["-c", &step.command.replace("localhost:8095", &address.to_string())]).env("PATH", path());
        let ran = output(&mut command, b"");
        let is_met = ran.status.success() && step.is_met_by(&String::from_utf8_lossy(&ran.stdout));
        assert!(is_met, "{file}: {}: expected {:?}: {ran:?}", step.command, step.expected);
    }
    steps.len()
}

/// Where programs are found, `wasmbox` first of all.
pub fn path() -> OsString {
    let binaries = workspace::wasmbox().parent().expect("it is in a directory").to_owned();
    let inherited = env::var_os("PATH").expect("there is a PATH");
    let all = [binaries].into_iter().chain(env::split_paths(&inherited));
    env::join_paths(all).expect("directories without a colon")
}

/// All commands that the document shows with their output.
fn steps(file: &str) -> Vec<Step> {
    document::blocks(file)
        .into_iter()
        .filter(|block| block.language == "console")
        .flat_map(|block| block.steps)
        .collect()
}

/// The file that the tutorial shows, and what it shows.
fn source(document: &str) -> (&str, &str) {
    let (_, after) = document.split_once("The function is `").expect("it names the source");
    let (file, after) = after.split_once('`').expect("the name ends");
    let (_, block) = after.split_once("\n```").expect("it shows the source");
    let (_, block) = block.split_once('\n').expect("the language's name");
    (file, block.split_once("```\n").expect("the block ends").0)
}
