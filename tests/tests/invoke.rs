//! `wasmbox invoke`: one call, of a box that runs, or of one that is started for it.

use std::{
    fs,
    process::{Command, Output},
};

use wasmbox_tests::{
    WasmBox,
    component::http_guest,
    eventually, guest,
    process::Process,
    project::{Project, output},
    temporary::TempDir,
    workspace,
};

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the output is text")
}

/// `wasmbox invoke` of a box that runs.
fn invoke(server: &WasmBox, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(workspace::wasmbox());
    command.arg("invoke").args(arguments).env_clear();
    command.env("WEBSERVER_HOST", "127.0.0.1").env("WEBSERVER_PORT", server.address().port().to_string());
    command.env("HEALTHCHECK_PORT", server.admin_address().port().to_string());
    output(&mut command, input)
}

fn said(ran: &Output, code: i32, parts: &[&str]) {
    assert_eq!(ran.status.code(), Some(code), "{ran:?}");
    for part in parts {
        assert!(text(&ran.stderr).contains(part), "{part:?} is not in {}", text(&ran.stderr));
    }
}

#[test]
fn the_answer_and_what_it_took() {
    let server = WasmBox::launch()
        .function("echo.wat", guest::echo())
        .function("arguments.wat", guest::arguments())
        .function("arguments.toml", "[limits]\nmemory-request = '64Mi'\n")
        .start();
    let ran = invoke(&server, &["echo"], b"");
    let usual = "limits   cpu-quota 500m, memory-request 200Mi, invocation-timeout 60000ms";
    said(
        &ran,
        0,
        &["200 OK in ", "time     run ", "queue ", "compile ", "cpu ", "memory ", usual, "id ", "in the box's log"],
    );
    assert_eq!(text(&ran.stdout), "");
    // Text, a file, standard input, of any bytes.
    let every_byte: Vec<u8> = (0..=255).collect();
    let file = server.launched().directory().join("data");
    fs::write(&file, &every_byte).expect("a new file");
    for (data, input, answer) in [
        ("some text", &b""[..], &b"some text"[..]),
        (&format!("@{}", file.display()), b"", &every_byte),
        ("@-", &every_byte, &every_byte),
        ("--flag", b"", b"--flag"),
    ] {
        let ran = invoke(&server, &["echo", "--quiet", "--data", data], input);
        said(&ran, 0, &[]);
        assert_eq!((&*ran.stdout, text(&ran.stderr)), (answer, ""), "{data}");
    }
    let ran =
        invoke(&server, &["arguments?arg=first", "--arg", "a b&c", "--arg", "--d", "--limit", "cpu-quota=250"], b"");
    said(&ran, 0, &["limits   cpu-quota 250m, memory-request 64Mi, invocation-timeout 60000ms"]);
    assert_eq!(text(&ran.stdout), "arguments\0first\0a b&c\0--d\0\n\n");
    let address = format!("http://{}/", server.address());
    let ran =
        output(Command::new(workspace::wasmbox()).args(["invoke", "echo", "--address", &address]).env_clear(), b"");
    said(&ran, 0, &["200 OK"]);
}

/// The log of a box that runs is shown to who has its token.
#[test]
fn standard_error_of_a_box_that_runs() {
    const TOKEN: &str = "0123456789abcdef-the-token";
    let directory = TempDir::new();
    let file = |name: &str, token: &str| {
        let path = directory.path().join(name);
        fs::write(&path, format!("{token}\n")).expect("a new file");
        path.to_str().expect("a name of text").to_owned()
    };
    let (right, wrong) = (file("right", TOKEN), file("wrong", "another-token-of-nobody"));
    let server = WasmBox::launch()
        .flag("--upload-token-file", &right)
        .function("complains.wat", guest::command("(call $copy (i32.const 0) (i32.const 2))"))
        .function("hello.wat", guest::hello())
        .start();
    // Another's lines are not shown.
    server.post("/complains", "of another call").ok();
    // The last lines may be on their way to the log that is read.
    let showing = |data: &str, input: &[u8], last: &str| {
        eventually("the last line is in the log", || {
            let ran = invoke(&server, &["complains?arg=a", "--token-file", &right, "--data", data], input);
            text(&ran.stderr).contains(last).then_some(ran)
        })
    };
    let ran = showing("first\nno end", b"", "no end");
    said(&ran, 0, &["200 OK", "\n  stderr   first\n  stderr   no end\n"]);
    assert!(!text(&ran.stderr).contains("of another call"), "{ran:?}");
    let ran = invoke(&server, &["hello", "--token-file", &right], b"");
    said(&ran, 0, &["200 OK"]);
    assert!(!text(&ran.stderr).contains("stderr"), "{ran:?}");
    let much = "fifteen letters\n".repeat(1 << 17);
    let ran = showing("@-", much.as_bytes(), "were not logged");
    said(&ran, 0, &["stderr   fifteen letters\n", "bytes more were not logged"]);
    let ran = invoke(&server, &["complains", "--token-file", &wrong, "--data", "x"], b"");
    said(&ran, 0, &["200 OK", "in the box's log, under this id: ", "is none of the box"]);
    let ran = invoke(&server, &["complains", "--token-file", "/nobody/has/it", "--data", "x"], b"");
    said(&ran, 1, &["--token-file /nobody/has/it: ", "its first line is the token"]);
    assert_eq!(text(&ran.stdout), "");

    // What a variable says is for one's own box.
    let address = server.address().to_string();
    for (flags, shown) in [(&[][..], "stderr   of mine"), (&["--address", &address], "--token-file shows it")] {
        let mut command = Command::new(workspace::wasmbox());
        command.args(["invoke", "complains", "--data", "of mine"]).args(flags).env_clear().env("WASMBOX_TOKEN", TOKEN);
        command.env("WEBSERVER_HOST", "127.0.0.1").env("WEBSERVER_PORT", server.address().port().to_string());
        command.env("HEALTHCHECK_PORT", server.admin_address().port().to_string());
        said(&output(&mut command, b""), 0, &["200 OK", shown]);
    }
}

#[test]
fn requests_of_any_kind() {
    let server = WasmBox::with("http.wasm", http_guest());
    let ran =
        invoke(&server, &["http/request?x=1", "--method", "PUT", "--header", "X-Mine: yes", "--data", "body"], b"");
    said(&ran, 0, &["200 OK"]);
    let answer = text(&ran.stdout);
    for part in ["PUT", "/http/request?x=1", "x-mine: yes"] {
        assert!(answer.to_lowercase().contains(&part.to_lowercase()), "{part} is not in {answer}");
    }
}

#[test]
fn errors_are_told_and_explained() {
    let complains = guest::command("(call $copy (i32.const 0) (i32.const 2)) unreachable");
    let server = WasmBox::with("traps.wat", complains);
    let ran = invoke(&server, &["traps", "--quiet", "--data", "no luck\nat all"], b"");
    said(
        &ran,
        1,
        &["500 Internal Server Error", "The function trapped: ", "\nno luck\nat all\n", "`wasmbox explain guest-trap`"],
    );
    assert_eq!(text(&ran.stdout), "");
    said(&invoke(&server, &["nothing"], b""), 1, &["404 Not Found", "no function \"nothing\"", "`wasmbox dev`"]);
    said(&invoke(&server, &["traps", "--limit", "memory-request=100Gi"], b""), 1, &["400 Bad Request", "4096Mi"]);
    // Refused before anything is sent.
    for (arguments, parts) in [
        (
            &["traps", "--limit", "memory=1"][..],
            &["cpu-quota=VALUE, memory-request=VALUE or invocation-timeout=VALUE"][..],
        ),
        (&["traps", "--limit", "cpu-quota=lots"], &["millicores"]),
        (&["traps", "--header", "X"], &["NAME: VALUE"]),
        (&[], &["NAME[/PATH][?QUERY]"]),
    ] {
        said(&invoke(&server, arguments, b""), 2, parts);
    }
    said(&invoke(&server, &["traps", "--data", "@/nowhere/data"], b""), 1, &["--data @/nowhere/data: "]);
    said(&invoke(&server, &["a b"], b""), 1, &["percent-encoded"]);
    let stopped = server.address().to_string();
    drop(server.stop());
    let ran = output(Command::new(workspace::wasmbox()).args(["invoke", "a", "--address", &stopped]).env_clear(), b"");
    said(&ran, 1, &[&stopped, "is `wasmbox serve` or `wasmbox dev` running?", "--file FILE"]);
}

/// A box for one call: with the file's settings, and all of the function's standard error.
#[test]
fn a_file_without_a_box() {
    let project = Project::with_settings("both", "");
    let both = guest::command("(call $copy (i32.const 0) (i32.const 2)) (call $print_arguments)");
    project.write("functions/both.wat", &both);
    project.write("functions/both.toml", "args = ['set']\n[limits]\ncpu-quota = 333\n");
    let file = project.path().join("functions/both.wat").display().to_string();
    for arguments in [
        &["invoke", "--file", &file][..],
        &["invoke", "--file", "functions/both.wat"],
        &["invoke", "both", "--file", "functions"],
    ] {
        let arguments = [arguments, &["--arg", "given", "--data", "one\ntwo\u{1b}[2J"]].concat();
        let ran = project.run(&arguments, b"");
        let parts = ["200 OK", "  stderr   one\n  stderr   two\\u{1b}[2J\n", "cpu-quota 333m, memory-request 200Mi"];
        said(&ran, 0, &parts);
        assert_eq!(text(&ran.stdout), "both\0set\0given\0");
    }
    // Another file of that stem would be called first.
    project.write("functions/both.wasm", wat_of(&guest::hello()));
    let ran = project.run(&["invoke", "--file", "functions/both.wat"], b"");
    assert_eq!(text(&ran.stdout), "both.wat\0set\0", "{ran:?}");
    assert_eq!(text(&project.run(&["invoke", "--file", "functions/both.wasm"], b"").stdout), "hello\n");
    project.write("functions/bad.wat", "(module (nonsense))");
    said(&project.run(&["invoke", "--file", "functions/bad.wat"], b""), 1, &["422", "nonsense"]);
    said(&project.run(&["invoke", "--file", "functions"], b""), 1, &["NAME --file functions"]);
    said(&project.run(&["invoke", "--file", "functions/none.wat"], b""), 1, &["--file functions/none.wat: "]);
    assert_nothing_left(&project);
}

fn wat_of(text: &str) -> Vec<u8> {
    wasmbox_tests::binary::encoded(text)
}

/// What only the log knows: why, and what it took.
#[test]
fn an_answer_that_ends_early() {
    let project = Project::with_settings("breaks", "output-buffer-bytes = 0\n");
    let breaks = guest::printing("the beginning", "(call $sleep (i64.const 300)) unreachable");
    project.write("functions/breaks.wat", breaks);
    let ran = project.run(&["invoke", "--file", "functions/breaks.wat"], b"");
    said(&ran, 1, &["200 OK, broken off after ", "cpu "]);
    let first = text(&ran.stderr).lines().next().expect("a line");
    assert!(first.starts_with("the answer was broken off: ") && first.contains("unreachable"), "{ran:?}");
    assert_eq!(text(&ran.stdout), "the beginning");
}

/// However it ends, its box ends with it.
#[test]
fn a_call_that_is_given_up() {
    for (signal, code) in [("-INT", Some(130)), ("-TERM", Some(143)), ("-KILL", None)] {
        let project = Project::with_settings("sleeps", "");
        project.write("functions/sleeps.wat", guest::sleeping());
        let mut call = project.command(workspace::wasmbox(), &["invoke", "--file", "functions/sleeps.wat"]);
        let mut call = call.spawn().expect("it runs");
        let local = eventually("its box", || Process(call.id()).children().first().copied());
        // It serves: it is a box, with threads.
        eventually("a box that serves", || {
            (fs::read_dir(format!("/proc/{}/task", local.0)).ok()?.count() > 3).then_some(())
        });
        let sent = Command::new("kill").args([signal, &call.id().to_string()]).status().expect("kill(1)");
        assert!(sent.success());
        let status = eventually("its end", || call.try_wait().expect("the child is ours"));
        assert_eq!(status.code(), code, "{signal}");
        eventually("the end of its box", || (!local.is_running()).then_some(()));
        assert_nothing_left(&project);
    }
}

fn assert_nothing_left(project: &Project) {
    let directory = project.path();
    eventually("no process of the project's", || {
        let numbers = fs::read_dir("/proc").expect("proc(5)").flatten();
        let mut numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let works_there = |number: u32| fs::read_link(format!("/proc/{number}/cwd")).is_ok_and(|cwd| cwd == directory);
        (!numbers.any(works_there)).then_some(())
    });
}
