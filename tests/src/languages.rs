//! What a function of `wasmbox new` takes in each language, as its compiler is here: rows of the table in docs/languages.md. The others are made
//! from [`crate::toolchains`].

use std::{
    fs,
    process::Output,
    time::{Duration, Instant},
};

use crate::{
    Answer, WasmBox, Wire,
    project::{Project, output},
    workspace,
};

/// What compiling the largest modules may take, on a machine that does other things, too.
const COMPILING: Duration = Duration::from_secs(1200);
/// Warm calls, whose median counts.
const CALLS: usize = 21;
/// What the functions write to standard error, or throw, when they fail.
const LAST_WORDS: &str = "out of luck";

/// A language of `wasmbox new`, with how a function of it fails.
pub struct Language {
    /// As `--lang` has it.
    pub name: &'static str,
    /// What builds it, without its version, and what it makes.
    pub toolchain: &'static str,
    pub makes: &'static str,
    /// A command of the shell that prints the version.
    version: &'static str,
    /// A file of the project, a text in it, and what makes it fail if it is asked to by `?arg=fail`.
    fails: (&'static str, &'static str, &'static str),
}

/// All of them, in the order of the table.
pub const LANGUAGES: [Language; 7] = [
    Language {
        name: "wat",
        toolchain: "wasmbox",
        makes: "command, WASI preview 1",
        version: r#""$WASMBOX" --version | cut -d ' ' -f 2"#,
        fails: (
            "functions/hello.wat",
            "(local $left i32)\n",
            "(local $left i32)\n    (call $proc_exit (i32.const 3))\n",
        ),
    },
    Language {
        name: "rust",
        toolchain: "rustc",
        makes: "command, WASI preview 1",
        version: "rustc --version | cut -d ' ' -f 2",
        fails: (
            "src/main.rs",
            "    let bytes",
            "    if name == \"fail\" {\n        eprintln!(\"out of luck\");\n        std::process::exit(3);\n    }\n    let bytes",
        ),
    },
    Language {
        name: "go",
        toolchain: "Go",
        makes: "command, WASI preview 1",
        version: "go env GOVERSION | sed s/go//",
        fails: (
            "main.go",
            "	bytes, err",
            "	if name == \"fail\" {\n		fmt.Fprintln(os.Stderr, \"out of luck\")\n		os.Exit(3)\n	}\n	bytes, err",
        ),
    },
    Language {
        name: "c",
        toolchain: "clang",
        makes: "command, WASI preview 1",
        version: r#""${WASI_CC:-clang}" --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p'"#,
        fails: (
            "src/main.c",
            "  while (",
            "  if (argc > 1 && argv[1][0] == 'f') {\n    fputs(\"out of luck\\n\", stderr);\n    return 3;\n  }\n  while (",
        ),
    },
    Language {
        name: "assemblyscript",
        toolchain: "AssemblyScript",
        makes: "command, WASI preview 1",
        version: r#"node -p 'require("./node_modules/assemblyscript/package.json").version'"#,
        fails: (
            "assembly/index.ts",
            "const buffer",
            "if (name == \"fail\") {\n  process.stderr.write(\"out of luck\\n\");\n  process.exit(3);\n}\nconst buffer",
        ),
    },
    Language {
        name: "js",
        toolchain: "componentize-js",
        makes: "HTTP component, WASI 0.2",
        version: r#"sed -n 's/.*componentize-js": "\(.*\)".*/\1/p' package.json"#,
        fails: (
            "app.js",
            "  const body",
            "  if (name === \"fail\") {\n    throw new Error(\"out of luck\");\n  }\n  const body",
        ),
    },
    Language {
        name: "python",
        toolchain: "componentize-py",
        makes: "command, WASI 0.2",
        version: "sed -n 's/^componentize-py==//p' requirements.txt",
        fails: (
            "app.py",
            "        body =",
            "        if name == \"fail\":\n            print(\"out of luck\", file=sys.stderr)\n            sys.exit(3)\n        body =",
        ),
    },
];

/// That language.
///
/// # Panics
/// If there is none of this name.
pub fn language(name: &str) -> &'static Language {
    LANGUAGES.iter().find(|language| language.name == name).unwrap_or_else(|| panic!("no language {name}"))
}

/// Measures the function of a project named `hello`, as `wasmbox new` has made it, and leaves its row in `target/languages`.
///
/// # Panics
/// If it cannot be built, or does not answer, or does not fail when it is asked to.
pub fn measure(language: &Language, project: &Project) {
    let (file, old, new) = language.fails;
    let is_wat = language.name == "wat";
    let ending = if is_wat { "wat" } else { "wasm" };
    let read = || fs::read(project.path().join(format!("functions/hello.{ending}"))).expect("a module");
    let whole = is_wat.then(read);
    project.replace(file, old, new);
    if !is_wat {
        succeeded(project.run(&["build"], b""));
    }
    // WAT's fails always, the others when they are asked to.
    let module = whole.unwrap_or_else(read);
    let server = WasmBox::launch()
        .function(&format!("hello.{ending}"), &module)
        .function(&format!("failing.{ending}"), read())
        .function("hello.toml", project.read("functions/hello.toml"))
        .start();
    let version = succeeded(output(&mut project.command("sh", &["-c", language.version]), b""));
    let function = Function {
        name: language.name,
        toolchain: &format!("{} {}", language.toolchain, version.trim()),
        makes: language.makes,
        bytes: module.len(),
        // WAT's copies its input, the others greet their first argument.
        works: Call { path: "hello?arg=Ada", body: if is_wat { "Ada" } else { "" }, answer: "Ada" },
        fails: Call {
            path: if is_wat { "failing" } else { "hello?arg=fail" },
            body: "",
            answer: if is_wat { "" } else { LAST_WORDS },
        },
    };
    function.measure(&server);
}

/// A call, and what is in its answer, or in the log if the function answers for itself.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub path: &'static str,
    pub body: &'static str,
    pub answer: &'static str,
}

impl Call {
    /// The answer, and the time until it was there.
    fn make(&self, server: &WasmBox) -> (Answer, Duration) {
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        let head = format!("{method} /{} HTTP/1.1\r\nHost: box\r\nContent-Length: {}\r\n", self.path, self.body.len());
        let begun = Instant::now();
        let mut wire = Wire::connect(server.address()).patient(COMPILING);
        wire.send(format!("{head}\r\n{}", self.body));
        let answer = wire.answer();
        (answer, begun.elapsed())
    }
}

/// What a box serves, and how it is called.
pub struct Function<'a> {
    /// Of its row.
    pub name: &'a str,
    /// What built it, with its version, and what that made.
    pub toolchain: &'a str,
    pub makes: &'a str,
    pub bytes: usize,
    pub works: Call,
    pub fails: Call,
}

impl Function<'_> {
    /// Leaves its row in `target/languages`.
    ///
    /// # Panics
    /// If it does not answer, or does not fail as it should.
    pub fn measure(&self, server: &WasmBox) {
        let Function { name, toolchain, makes, bytes, works, fails } = self;
        let begun = Instant::now();
        let give_up = begun + COMPILING;
        let answer = loop {
            let (answer, _) = works.make(server);
            // Its settings are unknown until it is loaded: a caller waits as long as the box's default lets it.
            if answer.status != 503 || Instant::now() > give_up {
                break answer.ok();
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let first = begun.elapsed();
        assert!(answer.text().contains(works.answer), "{name}: {}", answer.text());
        let warm = loop {
            let answer = works.make(server).0.ok();
            if !answer.header("server-timing").contains("baseline") {
                break answer;
            }
            assert!(Instant::now() < give_up, "{name}: it is not optimised");
            std::thread::sleep(Duration::from_millis(100));
        };
        let mut times: Vec<_> = (0..CALLS).map(|_| works.make(server).1).collect();
        times.sort_unstable();
        let (failed, _) = fails.make(server);
        assert!(failed.status >= 500, "{name}: {failed:?}");
        let told = failed.headers.contains_key("wasmbox-error");
        // A component may answer for itself, with whatever it likes.
        let (words, place) =
            if told { (failed.text().to_owned(), "answer") } else { (server.logged(&[fails.answer]), "log") };
        assert!(words.contains(fails.answer), "{name}: its last words are not in the {place}: {words}");
        let row = format!(
            "| {toolchain} | {makes} | {:.1} | {} | {:.1} | {:.1} | {} |\n",
            megabytes(*bytes as f64),
            first.as_millis(),
            times[CALLS / 2].as_secs_f64() * 1000.0,
            megabytes(warm.number("wasmbox-memory-peak-bytes")),
            said(&failed),
        );
        let directory = workspace::root().join("target/languages");
        fs::create_dir_all(&directory).expect("a directory of the workspace");
        fs::write(directory.join(format!("{name}.md")), row).expect("a file of the workspace");
    }
}

fn megabytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

pub(crate) fn succeeded(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a client is told of the failure.
fn said(failed: &Answer) -> String {
    if !failed.headers.contains_key("wasmbox-error") {
        let body = if failed.body.is_empty() { "empty" } else { "with a body" };
        return format!("{} of the component's own, {body}; the error is in the log", failed.status);
    }
    let code = failed.header("wasmbox-error");
    let problem = failed.problem(failed.status, code);
    let detail = problem.detail().lines().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let end = detail.char_indices().nth(120).map_or(detail.len(), |(end, _)| end);
    let dots = if end < detail.len() { "..." } else { "" };
    format!("{} [`{code}`](errors.md#{code}): {}{dots}", failed.status, &detail[..end])
}
