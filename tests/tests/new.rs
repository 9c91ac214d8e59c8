//! `wasmbox new` and `wasmbox build`: from nothing to a function that answers. Languages whose compilers `make test` does not get are in
//! languages.rs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

use wasmbox_tests::{
    eventually, guest,
    languages::LANGUAGES as MEASURED,
    process::Process,
    project::{Project, output},
    toolchains::TOOLCHAINS,
    workspace,
};

const LANGUAGES: [&str; 7] = ["rust", "python", "js", "go", "c", "assemblyscript", "wat"];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

/// `wasmbox new`, beside the project.
fn new(project: &Project, arguments: &[&str]) -> Output {
    let mut command = project.command(workspace::wasmbox(), &["new"]);
    output(command.args(arguments).current_dir(project.above()), b"")
}

fn entries(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

#[test]
fn each_language_has_sources_a_test_and_settings() {
    for language in LANGUAGES {
        let project = Project::new("my-function", language);
        assert_eq!(entries(project.above()), ["cache", "my-function", "tmp"], "nothing else is left");
        for file in ["README.md", "test.sh", ".gitignore", "functions/my-function.toml"] {
            assert!(!project.read(file).contains("{{"), "{language}: {file}");
        }
        assert!(project.read("README.md").contains("wasmbox invoke my-function"));
        assert_eq!(project.path().join("build.sh").exists(), language != "wat");
    }
}

#[test]
fn the_function_in_rust_passes_its_test() {
    let project = Project::new("hello", "rust");
    let tested = project.test();
    assert!(tested.status.success(), "{tested:?}");
    assert!(text(&tested.stdout).contains("hello answers as expected"), "{tested:?}");
    // A test that cannot fail would be none.
    project.replace("src/main.rs", "Hello", "Goodbye");
    let tested = project.test();
    assert_eq!(tested.status.code(), Some(1), "{tested:?}");
    assert!(text(&tested.stderr).contains("answered: Goodbye, Ada! You sent 9 bytes."), "{tested:?}");
    // What the compiler says, and that it failed.
    project.replace("src/main.rs", "Goodbye", "\"");
    let built = project.run(&["build"], b"");
    assert_eq!(built.status.code(), Some(1), "{built:?}");
    for part in ["src/main.rs", "could not compile", "wasmbox: hello: the build failed: \"sh build.sh\": exit code 101"]
    {
        assert!(text(&built.stderr).contains(part), "{part}: {built:?}");
    }
}

#[test]
fn the_function_as_text_passes_its_test() {
    let project = Project::new("hello", "wat");
    let tested = project.test();
    assert!(tested.status.success(), "{tested:?}");
    project.replace("functions/hello.wat", "fd_write\"", "fd_wrote\"");
    let built = project.run(&["build"], b"");
    assert_eq!(built.status.code(), Some(1), "{built:?}");
    assert!(text(&built.stderr).contains("hello.wat: not compiled"), "{built:?}");
    // Without a place for compiled code, too.
    for (function, code) in [("(module (nonsense))", 1), ("(module (func (export \"_start\")))", 0)] {
        project.write("functions/hello.wat", function);
        let mut build = project.command(workspace::wasmbox(), &["build"]);
        let built = output(build.env("CACHE_DIR", "none"), b"");
        assert_eq!(built.status.code(), Some(code), "{built:?}");
    }
}

/// On a machine with nothing but the standard utilities.
#[test]
fn what_is_missing_is_named_with_where_to_get_it() {
    for (language, remedy) in [
        ("rust", "https://rustup.rs"),
        ("go", "https://go.dev/dl"),
        ("c", "apt install clang lld wasi-libc libclang-rt-dev-wasm32"),
        ("js", "https://nodejs.org"),
        ("assemblyscript", "https://nodejs.org"),
        ("python", "https://www.python.org"),
    ] {
        let project = Project::new("hello", language);
        let utilities = project.above().join("cache/utilities");
        fs::create_dir(&utilities).expect("a new directory");
        for utility in ["sh", "dirname", "mkdir", "rm", "cat", "cmp", "grep"] {
            let path = ["/bin", "/usr/bin"].map(|directory| Path::new(directory).join(utility));
            let path = path.iter().find(|path| path.exists()).expect("a standard utility");
            symlink(path, utilities.join(utility)).expect("a new symlink");
        }
        let mut build = project.command(workspace::wasmbox(), &["build"]);
        let built = output(build.env("PATH", &utilities).env_remove("WASI_CC"), b"");
        assert_eq!(built.status.code(), Some(1), "{language}: {built:?}");
        assert!(text(&built.stderr).contains(remedy), "{language}: {built:?}");
        assert_eq!(entries(&project.path().join("functions")), ["hello.toml"]);
    }
}

/// A compiler that is there, but is none for WASI, says so itself.
#[test]
fn what_the_compiler_said_is_shown() {
    let project = Project::new("hello", "c");
    let mut build = project.command(workspace::wasmbox(), &["build"]);
    let built = output(build.env("WASI_CC", "ls").env("LC_ALL", "C"), b"");
    assert_eq!(built.status.code(), Some(1), "{built:?}");
    for part in ["unrecognized option '--target=wasm32-wasi'", "ls cannot build for WASI"] {
        assert!(text(&built.stderr).contains(part), "{part}: {built:?}");
    }
}

/// What a world imports and exports, and what its comment says that it may import, is in the files beside it.
#[test]
fn the_interfaces_that_a_template_names_are_there() {
    let project = Project::new("hello", "js");
    let world = project.read("wit/world.wit");
    let deps: Vec<String> = entries(&project.path().join("wit/deps"))
        .iter()
        .map(|file| project.read(&format!("wit/deps/{file}")))
        .collect();
    let named: Vec<&str> = world.split("wasi:").skip(1).map(|after| after.split([';', '`']).next().unwrap()).collect();
    assert_eq!(named, ["http/outgoing-handler@0.2.3", "http/incoming-handler@0.2.3"]);
    for named in named {
        let (package, rest) = named.split_once('/').expect("an interface of a package");
        let (interface, version) = rest.split_once('@').expect("a version");
        let package = format!("package wasi:{package}@{version};");
        let interface = format!("interface {interface} {{");
        let is_there = deps.iter().any(|file| file.contains(&package) && file.contains(&interface));
        assert!(is_there, "{named} is not in wit/deps");
    }
    assert!(world.contains("remove `--disable http` from"), "{world}");
    assert!(project.read("package.json").contains(" --disable http "));
}

#[test]
fn what_is_there_is_left_alone() {
    let project = Project::nothing("hello");
    let occupied = project.above().join("hello");
    fs::create_dir(&occupied).expect("a new directory");
    // An empty directory is as good as none.
    let made = new(&project, &["hello", "--lang", "wat"]);
    assert!(made.status.success(), "{made:?}");
    let before = entries(&occupied);
    for arguments in [&["hello", "--lang", "rust"][..], &["other", "--lang", "rust", "--directory", "hello"]] {
        let made = new(&project, arguments);
        assert_eq!(made.status.code(), Some(1), "{made:?}");
        assert!(text(&made.stderr).contains("hello is there already, and not empty"), "{made:?}");
    }
    assert_eq!(entries(&occupied), before);
    let made = new(&project, &["other", "--lang", "wat", "--directory", "deep/place"]);
    assert!(made.status.success(), "{made:?}");
    assert!(project.above().join("deep/place/functions/other.wat").is_file());
    for bad in ["Hello", "a/b", "..", "-x", "1a", ""] {
        let made = new(&project, &["--lang", "wat", "--", bad]);
        assert_eq!(made.status.code(), Some(2), "{bad}: {made:?}");
        assert!(text(&made.stderr).contains("lower-case letters"), "{made:?}");
    }
    let made = new(&project, &["hello", "--lang", "rusty"]);
    assert_eq!(made.status.code(), Some(2), "{made:?}");
    for language in LANGUAGES {
        assert!(text(&made.stderr).contains(language), "{language}: {made:?}");
    }
}

fn settings(command: &str, output: &str, watch: &str) -> String {
    format!("[build]\ncommand = '''{command}'''\noutput = '{output}'\nwatch = {watch}\n")
}

#[test]
fn build_says_what_is_wrong_with_the_settings() {
    for (settings, parts) in [
        (settings("true", "made.wat", "['src']"), &["succeeded", "made.wat", "`output`", "functions/hello.toml"][..]),
        (settings("exit 3", "made.wat", "['src']"), &["hello: the build failed: \"exit 3\": exit code 3"]),
        (settings("kill -9 $$", "made.wat", "['src']"), &["hello: the build failed: \"kill -9 $$\": signal 9"]),
        (settings("true", "../made.wat", "['src']"), &["output of [build] is ../made.wat", "without `..`"]),
        (settings("true", "made.wat", "['/etc']"), &["watch of [build] is /etc"]),
        (settings("true", "made.wat", "[]"), &["`watch` of [build] is empty"]),
        ("[build]\ncomand = 'true'".into(), &["hello.toml", "`comand`: did you mean `command`?"]),
        ("[build]\ncommand = 'true'\nwatch = ['src']".into(), &["missing field `output`"]),
    ] {
        let built = Project::with_settings("hello", &settings).run(&["build"], b"");
        assert_eq!(built.status.code(), Some(1), "{settings}: {built:?}");
        for part in parts {
            assert!(text(&built.stderr).contains(part), "{part} is not in {}", text(&built.stderr));
        }
    }
    let nothing = Project::nothing("hello");
    fs::create_dir(nothing.path()).expect("a new directory");
    let built = nothing.run(&["build"], b"");
    assert_eq!(built.status.code(), Some(1), "{built:?}");
    assert!(text(&built.stderr).contains("wasmbox new NAME --lang LANGUAGE"), "{built:?}");
}

/// The module is replaced in one step, and only by another one.
#[test]
fn build_puts_the_module_where_it_is_served() {
    let project = Project::with_settings("hello", &settings("cp src/in.wat made.wat", "made.wat", "['src']"));
    project.write("src/in.wat", guest::hello());
    let modified = || {
        let module = fs::metadata(project.path().join("functions/hello.wat")).expect("the module");
        module.modified().expect("a time")
    };
    assert!(project.run(&["build"], b"").status.success());
    let first = modified();
    assert!(project.run(&["build"], b"").status.success());
    assert_eq!(modified(), first, "it was written again");
    // From elsewhere, too.
    project.write("src/in.wat", guest::echo());
    let directory = project.path().display().to_string();
    let mut build = project.command(workspace::wasmbox(), &["build", &directory]);
    assert!(output(build.current_dir("/"), b"").status.success());
    assert_eq!(project.read("functions/hello.wat"), guest::echo());
    // A directory is in the way.
    fs::remove_file(project.path().join("functions/hello.wat")).expect("the file is there");
    fs::create_dir(project.path().join("functions/hello.wat")).expect("a new directory");
    let built = project.run(&["build"], b"");
    assert_eq!(built.status.code(), Some(1), "{built:?}");
    assert!(text(&built.stderr).contains("functions/hello.wat: "), "{built:?}");
}

/// What a build has started ends with it.
#[test]
fn an_interrupted_build_leaves_nothing() {
    let command = "sleep 1000 & echo $! > started; wait";
    let project = Project::with_settings("hello", &settings(command, "made.wat", "['src']"));
    let mut build = project.command(workspace::wasmbox(), &["build"]).spawn().expect("it runs");
    let sleeper = eventually("the build's child", || {
        fs::read_to_string(project.path().join("started")).ok()?.trim().parse().ok().map(Process)
    });
    assert!(sleeper.is_running());
    let interrupted = Command::new("kill").args(["-INT", &build.id().to_string()]).status().expect("kill(1)");
    assert!(interrupted.success());
    let status = eventually("its end", || build.try_wait().expect("the child is ours"));
    assert_eq!(status.code(), Some(130));
    eventually("the end of what it started", || (!sleeper.is_running()).then_some(()));
}

/// Figures differ from one machine to the next; what was measured does not.
#[test]
fn the_documented_languages_are_those_that_are_measured() {
    let file = workspace::root().join("docs/languages.md");
    let document = fs::read_to_string(&file).expect("the document");
    let (_, table) = document.split_once("\n|---").expect("a table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    let templates = MEASURED.iter().map(|language| (language.toolchain, language.makes));
    let measured: Vec<_> = templates.chain(TOOLCHAINS.iter().map(|other| (other.toolchain, other.makes))).collect();
    assert_eq!(rows.len(), measured.len(), "make languages-table writes {}", file.display());
    for (row, (toolchain, makes)) in rows.iter().zip(measured) {
        let version = row[0].strip_prefix(toolchain).unwrap_or_else(|| panic!("{row:?} is not of {toolchain}"));
        assert!(version.starts_with(' ') && version.contains('.'), "{row:?} has no version");
        assert_eq!((row.len(), row[1]), (7, makes), "{row:?}");
        for figure in &row[2..6] {
            assert!(figure.parse::<f64>().is_ok_and(|figure| figure >= 0.0), "{figure:?} in {row:?}");
        }
        assert!(row[6].starts_with("500 "), "{row:?}");
    }
}
