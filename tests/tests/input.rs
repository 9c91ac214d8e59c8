//! What a command gets: arguments, standard input, environment.

use http::{HeaderValue, Version};
use wasmbox_tests::{Answer, Request, WasmBox, guest};

fn server() -> WasmBox {
    WasmBox::launch()
        .function("arguments.wat", guest::arguments())
        .function("echo.wat", guest::echo())
        .function("environment.wat", guest::command("(call $print_environment)"))
        .function("hello.wat", guest::hello())
        .start()
}

/// What `guest::arguments` printed: the arguments, and the input.
fn split(answer: Answer) -> (Vec<String>, Vec<u8>) {
    let body = answer.ok().body;
    // Arguments may contain line ends, so the mark is the last NUL that is followed by them.
    let end =
        body.windows(3).rposition(|window| window == b"\0\n\n").expect("arguments end with NUL and two line ends");
    let arguments = std::str::from_utf8(&body[..end]).expect("arguments are UTF-8");
    (arguments.split('\0').map(str::to_owned).collect(), body[end + 3..].to_vec())
}

#[test]
fn arguments_in_order_after_the_modules_name() {
    let server = server();
    for (query, expected) in [
        ("", &["arguments"][..]),
        ("?", &["arguments"]),
        ("?arg=a&arg=b&arg=a", &["arguments", "a", "b", "a"]),
        ("?arg=1&other=2&arg=3&ARG=4&args=5", &["arguments", "1", "3"]),
        ("?arg&arg=&arg=x", &["arguments", "", "", "x"]),
        ("?arg=a=b=c", &["arguments", "a=b=c"]),
        ("?%61rg=x", &["arguments", "x"]),
    ] {
        assert_eq!(split(server.get(&format!("/arguments{query}"))).0, expected, "{query}");
    }
    assert_eq!(split(server.get("/arguments.wat?arg=a")).0, ["arguments.wat", "a"]);
}

#[test]
fn arguments_of_odd_bytes() {
    let server = server();
    for (encoded, decoded) in [
        ("a+b", "a b"),
        ("a%2Bb", "a+b"),
        ("%20%09%0A%0D", " \t\n\r"),
        ("%22%27%5C%60%24%28%29", "\"'\\`$()"),
        ("%26%3D%23%3F%2F%25", "&=#?/%"),
        ("%C3%A9%F0%9F%A6%80%E2%80%AE", "é🦀\u{202e}"),
        ("%01%1F%7F", "\u{1}\u{1f}\u{7f}"),
        ("100%", "100%"),
        ("%zz%2", "%zz%2"),
        ("--help", "--help"),
        ("../../etc/passwd", "../../etc/passwd"),
    ] {
        assert_eq!(split(server.get(&format!("/arguments?arg={encoded}"))).0, ["arguments", decoded], "{encoded}");
    }
    let long = "x".repeat(32 << 10);
    assert_eq!(split(server.get(&format!("/arguments?arg={long}"))).0[1], long);
    let many = server.get(&format!("/arguments?{}", "arg=&".repeat(5000)));
    assert_eq!(split(many).0.len(), 5001);
}

#[test]
fn arguments_of_the_settings_come_first() {
    let server = WasmBox::launch()
        .function("arguments.wat", guest::arguments())
        .function("arguments.toml", "args = ['--fixed', 'é']")
        .start();
    assert_eq!(split(server.get("/arguments?arg=own")).0, ["arguments", "--fixed", "é", "own"]);
}

#[test]
fn empty_input() {
    let server = server();
    assert_eq!(server.get("/echo").ok().body, "");
    assert_eq!(server.post("/echo", "").ok().body, "");
    // No length and no chunks: no body.
    assert_eq!(server.wire("POST /echo HTTP/1.1\r\nHost: box\r\n\r\n").answer().ok().body, "");
    let mut chunked = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(chunked.answer().ok().body, "");
}

#[test]
fn binary_input() {
    let server = server();
    let every_byte: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for size in [1, 255, 256, 4096, 65_535, 65_536, 65_537, 70_000] {
        assert!(server.post("/echo", every_byte[..size].to_vec()).ok().body == every_byte[..size], "{size} bytes");
    }
    for odd in [&b"\0"[..], b"\n", b"\r\n\r\n", b"\xff\xfe", b"{", b"0\r\n\r\n"] {
        assert_eq!(server.post("/echo", odd).ok().body, odd);
    }
    // GET may have a body too.
    assert_eq!(server.call(Request::get("/echo"), "of GET").ok().body, "of GET");
}

/// Much more than the guest's memory, and than what is held back on the way.
#[test]
fn large_input_is_streamed() {
    let server = server();
    server.post("/echo", "compiled").ok();
    let before = server.process().peak_resident_bytes();
    let large: Vec<u8> = (0..64_u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert!(server.post("/echo", large.clone()).ok().body == large, "what comes back differs");
    let growth = server.process().peak_resident_bytes().saturating_sub(before);
    assert!(growth < 32 << 20, "64 MiB through the box took {growth} bytes of its memory");
}

/// The guest reads what has come while the rest is still to come.
#[test]
fn input_arrives_as_it_is_sent() {
    let server =
        WasmBox::launch().function("echo.wat", guest::echo()).function("echo.toml", "output-buffer-bytes = 0").start();
    let mut wire = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.send_chunk(b"first");
    assert_eq!(wire.head().status, 200);
    assert_eq!(wire.chunk().expect("the first part"), Some(b"first".to_vec()));
    wire.send_chunk(b"second");
    assert_eq!(wire.chunk().expect("the second part"), Some(b"second".to_vec()));
    wire.send_chunk(b"");
    assert_eq!(wire.chunk().expect("the end"), None);
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let server = server();
    let mut wire = server.wire("POST /echo HTTP/1.1\r\nHost: box\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(wire.interim_head().status, 100);
    wire.send("hello");
    assert_eq!(wire.answer().ok().body, "hello");
    // Whoever is refused is not asked to send.
    let mut wire =
        server.wire("POST /nothing HTTP/1.1\r\nHost: box\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(wire.interim_head().status, 404);
}

#[test]
fn input_that_is_not_read() {
    let server = server();
    for size in [1, 100_000, 4 << 20] {
        assert_eq!(server.post("/hello", vec![b'x'; size]).ok().body, "hello\n");
    }
}

#[test]
fn the_parameter_form() {
    let server = server();
    for (body, parameter) in [
        (r#"{"parameter":"42"}"#, "42"),
        ("\r\n\t {  \"parameter\" :\n \"a b\"  }  \n", "a b"),
        (r#"{"parameter":""}"#, ""),
        (r#"{"parameter":"\u00e9\n\"\\\ud83e\udd80"}"#, "é\n\"\\🦀"),
        (r#"{"parameter":"{\"parameter\":\"inner\"}"}"#, r#"{"parameter":"inner"}"#),
    ] {
        let expected = (vec!["arguments".into(), parameter.into()], parameter.as_bytes().to_vec());
        assert_eq!(split(server.post("/arguments", body)), expected, "{body}");
        // Whatever the method and the length's form.
        assert_eq!(split(server.call(Request::get("/arguments"), body)), expected, "{body}");
        let mut wire = server.wire("POST /arguments HTTP/1.1\r\nHost: box\r\nTransfer-Encoding: chunked\r\n\r\n");
        body.as_bytes().chunks(3).for_each(|piece| wire.send_chunk(piece));
        wire.send_chunk(b"");
        assert_eq!(split(wire.answer()), expected, "{body} in chunks");
    }
    // Before the request's own arguments.
    let (arguments, _) = split(server.post("/arguments?arg=own", r#"{"parameter":"p"}"#));
    assert_eq!(arguments, ["arguments", "p", "own"]);
}

#[test]
fn what_is_nearly_the_parameter_form_is_input() {
    let server = server();
    let long = format!(r#"{{"parameter":"{}"}}"#, "x".repeat(2 << 20));
    for body in [
        r#"{"parameter":42}"#,
        r#"{"parameter":null}"#,
        r#"{"parameter":["a"]}"#,
        r#"{"parameter":{"a":"b"}}"#,
        r#"{"parameter":"a","other":"b"}"#,
        r#"{"other":"b","parameter":"a"}"#,
        r#"{"parameter":"a","parameter":"b"}"#,
        r#"{"Parameter":"a"}"#,
        r#"{"parameters":"a"}"#,
        r#"{"parameter":"a"} x"#,
        r#"{"parameter":"a"}{}"#,
        r#"[{"parameter":"a"}]"#,
        r#"{"parameter":"a"#,
        r#"{"parameter":"a",}"#,
        r#"{'parameter':'a'}"#,
        r#"{"parameter":"\ud83e"}"#,
        r#""parameter""#,
        "\u{feff}{\"parameter\":\"a\"}",
        "{}",
        "{",
        &long,
    ] {
        let (arguments, input) = split(server.post("/arguments", body.to_owned()));
        assert_eq!(arguments, ["arguments"], "{:.60}", body);
        assert!(input == body.as_bytes(), "{body:.60} came as {} bytes", input.len());
    }
}

/// The environment as (name, value).
fn environment(answer: Answer) -> Vec<(String, String)> {
    let text = answer.ok().text().to_owned();
    text.split_terminator('\0')
        .map(|line| line.split_once('=').map(|(name, value)| (name.into(), value.into())).expect("NAME=VALUE"))
        .collect()
}

fn get<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = environment.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let value = values.next();
    assert_eq!(values.next(), None, "{name} is there twice");
    value
}

#[test]
fn cgi_variables() {
    let server = server();
    let odd = HeaderValue::from_bytes(b"caf\xe9").expect("a value HTTP allows");
    let request = Request::post("/environment?arg=a%20b&c=%26")
        .header("Host", "functions.example:8095")
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .header("Cookie", "a=1")
        .header("Cookie", "b=2")
        .header("X-Odd", odd)
        .header("Proxy", "http://evil.example/")
        .header("Authorization", "Basic eDp5");
    let variables = environment(server.call(request, "12345"));
    let port = server.address().port().to_string();
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", "/environment"),
        ("QUERY_STRING", "arg=a%20b&c=%26"),
        ("REQUEST_URI", "/environment?arg=a%20b&c=%26"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_NAME", "functions.example"),
        ("SERVER_PORT", &port),
        ("CONTENT_LENGTH", "5"),
        ("CONTENT_TYPE", "text/plain; charset=utf-8"),
        ("HTTP_X_TWICE", "1, 2"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_X_ODD", "caf\u{fffd}"),
        ("HTTP_HOST", "functions.example:8095"),
    ] {
        assert_eq!(get(&variables, name), Some(value), "{name} in {variables:?}");
    }
    assert!(get(&variables, "SERVER_SOFTWARE").is_some_and(|software| software.starts_with("wasmbox/")));
    assert!(get(&variables, "REMOTE_PORT").is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)));
    // Programs would take it for a setting of theirs (CVE-2016-5385); and the body's headers have their own names.
    for name in ["HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"] {
        assert_eq!(get(&variables, name), None);
    }
}

/// A proxy that sets `X-Remote-User` removes what its clients send under that name. `X_Remote_User` would be the same variable.
#[test]
fn a_header_cannot_pass_for_another() {
    let server = server();
    for forged_first in [true, false] {
        let (forged, known) = ("X_Remote_User: forged\r\n", "X-Remote-User: known\r\n");
        let headers = if forged_first { [forged, known] } else { [known, forged] }.concat();
        let variables =
            environment(server.wire(format!("GET /environment HTTP/1.1\r\nHost: box\r\n{headers}\r\n")).answer());
        let users: Vec<_> = variables.iter().filter(|(name, _)| name == "HTTP_X_REMOTE_USER").collect();
        assert_eq!(users, [&("HTTP_X_REMOTE_USER".to_owned(), "known".to_owned())]);
    }
}

#[test]
fn cgi_variables_of_other_protocols_and_methods() {
    let server = server();
    let variables = environment(server.call(Request::get("/environment").version(Version::HTTP_2), ""));
    assert_eq!(get(&variables, "SERVER_PROTOCOL"), Some("HTTP/2.0"));
    assert_eq!(get(&variables, "SERVER_NAME"), Some("127.0.0.1"));
    assert_eq!(get(&variables, "CONTENT_LENGTH"), None);
    assert_eq!(get(&variables, "QUERY_STRING"), Some(""));
    let variables = environment(server.wire("GET /environment HTTP/1.0\r\n\r\n").answer());
    assert_eq!(get(&variables, "SERVER_PROTOCOL"), Some("HTTP/1.0"));
    assert_eq!(get(&variables, "SERVER_NAME"), Some("127.0.0.1"));
    assert_eq!(get(&environment(server.post("/environment", "")), "CONTENT_LENGTH"), Some("0"));
    // The value of the parameter form is what the guest can read, so its length is what counts.
    let variables = environment(server.post("/environment", r#"{"parameter":"42"}"#));
    assert_eq!(get(&variables, "CONTENT_LENGTH"), Some("2"));
}

#[test]
fn variables_of_the_settings_and_none_of_the_servers() {
    let server = WasmBox::launch()
        .function("environment.wat", guest::command("(call $print_environment)"))
        .function("environment.toml", "env = { GREETING = 'a = b', EMPTY = '' }")
        .env("SECRET", "of the server")
        .env("PATH", "/bin")
        .start();
    let variables = environment(server.get("/environment"));
    assert_eq!(get(&variables, "GREETING"), Some("a = b"));
    assert_eq!(get(&variables, "EMPTY"), Some(""));
    for name in ["SECRET", "PATH", "HOME", "PWD"] {
        assert_eq!(get(&variables, name), None);
    }
}
