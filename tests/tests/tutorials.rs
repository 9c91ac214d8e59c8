//! The tutorials in languages whose compilers `make test` has; `make languages` follows the others (languages.rs). And guides whose commands call
//! the examples.

use std::fs;

use wasmbox_tests::{Request, WasmBox, tutorial, workspace};

#[test]
fn rust() {
    tutorial::follow("rust");
}

#[test]
fn wat() {
    tutorial::follow("wat");
}

fn cloudevents() -> WasmBox {
    let settings = fs::read(workspace::example("cloudevents.toml")).expect("the example's settings");
    WasmBox::launch().example("cloudevents.wasm").function("cloudevents.toml", settings).start()
}

#[test]
fn events_are_received_as_the_guide_says() {
    assert_eq!(tutorial::call("docs/events.md", cloudevents().address()), 3);
}

/// As a broker sends it: the answer is an event of its own. What is no event, or of another version, is the sender's mistake.
#[test]
fn an_event_is_answered_with_an_event() {
    let server = cloudevents();
    let event = |version: &str| {
        let request = Request::post("/cloudevents").header("Ce-Specversion", version).header("Ce-Id", "a-7");
        request.header("Ce-Source", "/shop").header("Ce-Type", "com.example.order").header("Content-Type", "text/plain")
    };
    let answer = server.call(event("1.0"), "an order").ok();
    for (header, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "answer-to-a-7"),
        ("ce-type", "com.example.order.received"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(answer.header(header), value, "{answer:?}");
    }
    assert_eq!(answer.text(), "{\"bytes\":8,\"source\":\"/shop\"}\n");
    let refused = server.call(event("0.3"), "an order");
    assert_eq!((refused.status, refused.text()), (400, "specversion is \"0.3\"; expected 1.0\n"));
    let structured =
        Request::post("/cloudevents").header("Content-Type", "application/cloudevents+json; charset=utf-8");
    // Line ends of an attribute do not become headers.
    let document = r#"{"specversion":"1.0","id":"7\nInjected: 1","source":"/shop","type":"order","data":"text"}"#;
    let answer = server.call(structured, document).ok();
    assert_eq!(answer.header("ce-id"), "answer-to-7Injected:1", "{answer:?}");
    assert_eq!(answer.text(), "{\"bytes\":4,\"source\":\"/shop\"}\n");
}

/// What the guide for authors shows is the example, which answers as it says there.
#[test]
fn values_configuration_and_the_log_are_as_the_guide_says() {
    let read = |file: &str| fs::read_to_string(workspace::root().join(file)).expect("a file");
    let guide = read("docs/writing-functions.md");
    for (language, file) in [
        ("rust", "examples/counter/src/main.rs"),
        ("wit", "examples/counter/wit/world.wit"),
        ("toml", "examples/functions/counter.toml"),
    ] {
        let content = read(file);
        // A comment at the top is for who reads the file alone.
        let is_comment = content.starts_with("//!") || content.starts_with('#');
        let shown = if is_comment { content.split_once("\n\n").expect("what is below it").1 } else { &content };
        assert!(guide.contains(&format!("```{language}\n{shown}```\n")), "{file} is not in the guide");
    }
    let settings = read("examples/functions/counter.toml");
    let launch = WasmBox::launch().example("counter.wasm").function("counter.toml", settings);
    let directory = launch.directory().join("kept");
    assert!(guide.contains("--keyvalue-dir kept"));
    let server = launch.flag("--keyvalue-dir", directory.display()).start();
    for visitor in 1..=2 {
        let answer = server.get("/counter").ok();
        assert!(guide.contains(&format!("$ curl -s localhost:8095/counter\n{}", answer.text())), "{answer:?}");
        server.logged(&["severity=info", "context=visits", &format!("log=\"visit {visitor}\"")]);
    }
}
