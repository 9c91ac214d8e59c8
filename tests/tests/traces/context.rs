//! Which trace an invocation is in, and what its guest is told of it.

use std::fs;

use wasmbox_tests::{Collector, Request, Upstream, WasmBox, component::http_guest, guest};

use super::{ENVIRONMENT, PARENT, TRACE, environment, launch, server_span};

#[test]
fn guests_are_told_of_their_span_and_what_they_send_belongs_to_it() {
    let (collector, upstream) = (Collector::start(), Upstream::plain("127.0.0.1:0"));
    let granted = upstream.address().to_string();
    let server = launch(&collector)
        .function("env.wat", guest::command("(call $print_environment)"))
        .function(ENVIRONMENT.0, ENVIRONMENT.1)
        .function("http.wasm", http_guest())
        .function("http.toml", format!("allowed-outbound-hosts = [{granted:?}]"))
        .flag("--allow-outbound", &granted)
        .start();
    let seen = environment(&server, Request::get("/env").header("traceparent", PARENT).header("tracestate", "a=1"));
    let spans = collector.wait_for(1);
    let expected = format!("00-{TRACE}-{}-01", server_span(&spans).id);
    assert_eq!((&seen["HTTP_TRACEPARENT"], seen["HTTP_TRACESTATE"].as_str()), (&expected, "a=1"));

    let traced = |path: &str| server.call(Request::get(path).header("traceparent", PARENT), "").ok().text().to_owned();
    let inside = traced("/http/request");
    assert!(inside.contains(&format!("traceparent: 00-{TRACE}-")) && !inside.contains("b7ad6b7169203331"), "{inside}");
    let url = format!("/http/fetch?GET,http://{granted}/trace");
    let sent = traced(&url);
    assert!(sent.contains(&format!("traceparent=00-{TRACE}-")) && !sent.contains("b7ad6b7169203331"), "{sent}");
    // A span of the guest's own in the same trace is its to name; another trace is not.
    let own = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let sent = traced(&format!("{url},header=traceparent:{own}"));
    assert!(sent.contains(&format!("traceparent={own}")), "{sent}");
    let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = traced(&format!("{url},header=traceparent:{other},header=tracestate:evil"));
    assert!(sent.contains(&format!("traceparent=00-{TRACE}-")) && !sent.contains("4bf92f35"), "{sent}");
    assert!(!sent.contains("evil"), "{sent}");
}

#[test]
fn what_is_no_parent_begins_a_trace() {
    let collector = Collector::start();
    let server = launch(&collector)
        .function("env.wat", guest::command("(call $print_environment)"))
        .function(ENVIRONMENT.0, ENVIRONMENT.1)
        .start();
    let bad = PARENT.replace("00-0af7", "00-0AF7");
    let long = format!("{PARENT}{}", "0".repeat(4000));
    for headers in [&["nothing"][..], &[&bad], &[&long], &[PARENT, PARENT]] {
        let request = Request::get("/env").header("tracestate", "a=1");
        let request = headers.iter().fold(request, |request, value| request.header("traceparent", *value));
        let seen = environment(&server, request);
        let parent = &seen["HTTP_TRACEPARENT"];
        assert!(parent.len() == 55 && !parent.contains(TRACE) && parent.ends_with("-01"), "{parent}");
        assert!(!seen.contains_key("HTTP_TRACESTATE"), "{seen:?}");
    }
}

#[test]
fn without_a_collector_headers_pass_as_they_are() {
    let server = WasmBox::launch()
        .function("env.wat", guest::command("(call $print_environment)"))
        .function(ENVIRONMENT.0, ENVIRONMENT.1)
        .start();
    for value in [PARENT, "anything"] {
        let seen = environment(&server, Request::get("/env").header("traceparent", value));
        assert_eq!(seen["HTTP_TRACEPARENT"], value);
    }
    assert!(!environment(&server, Request::get("/env")).contains_key("HTTP_TRACEPARENT"));
    assert!(!server.log().contains("trace_id"), "{}", server.log());
    let threads = fs::read_dir(format!("/proc/{}/task", server.process().0)).expect("a process").flatten();
    let mut names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    assert!(!names.any(|name| name.trim() == "traces"));
}
