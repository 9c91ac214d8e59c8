//! What a collector gets of an invocation.

use wasmbox_tests::{
    Collector, Request, TestCgroup, WasmBox, binary, client::exchange, collector::Span, component::http_guest,
    eventually, guest,
};

use super::{ENVIRONMENT, PARENT, TRACE, environment, launch, server_span};

#[test]
fn an_invocation_is_a_span_of_its_callers_trace_with_its_phases_below() {
    let collector = Collector::start();
    let server = launch(&collector)
        .flag("--otlp-headers", "x-secret=a%2Cb")
        .flag("--otlp-resource-attributes", "deployment.environment.name=test,service.name=other")
        .env("OTEL_SERVICE_NAME", "the-box")
        .flag("--pod-name", "pod-7")
        .start();
    let request = Request::post("/hello?arg=secret").header("traceparent", PARENT).header("tracestate", "a=1, b=2");
    let answer = server.call(request.header("x-secret", "of the client"), "secret body").ok();
    let spans = collector.wait_for(1);
    let span = server_span(&spans);
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, "b7ad6b7169203331"));
    assert_eq!((span.name.as_str(), span.state.as_str(), span.flags), ("POST /hello", "a=1,b=2", 0x301));
    let id = answer.headers["wasmbox-invocation-id"].to_str().expect("digits");
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/hello"),
        ("http.response.status_code", "200"),
        ("url.path", "/hello"),
        ("faas.name", "hello"),
        ("faas.invocation_id", id),
        ("wasmbox.memory_peak_bytes", answer.headers["wasmbox-memory-peak-bytes"].to_str().expect("digits")),
        ("wasmbox.cpu_time_us", answer.headers["wasmbox-cpu-time-us"].to_str().expect("digits")),
    ] {
        assert_eq!(span.attributes.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(span.attributes.contains_key("wasmbox.cpu_quota_millicores"), "{span:?}");
    assert_eq!(span.status, (0, String::new()));
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    for phase in ["compile", "parse", "queue", "exec"] {
        assert!(names.contains(&phase), "{phase} is not among {names:?}");
    }
    for child in spans.iter().filter(|child| child.id != span.id) {
        assert_eq!((&child.trace, &child.parent, child.kind), (&span.trace, &span.id, 1), "{child:?}");
        assert!(span.start <= child.start && child.start <= child.end && child.end <= span.end, "{child:?} {span:?}");
    }
    // Nothing of the request is in there but its method, its path and its trace.
    assert!(!format!("{spans:?}").contains("secret"));
    let resource = collector.resource();
    for (name, value) in
        [("service.name", "the-box"), ("service.instance.id", "pod-7"), ("deployment.environment.name", "test")]
    {
        assert_eq!(resource.get(name).map(String::as_str), Some(value), "{resource:?}");
    }
    assert_eq!(collector.requests()[0]["x-secret"], "a,b");
    wait_until_exported(&server, 1.0);
    server.logged(&["function=hello", "trace_id=0af7651916cd43dd8448eb211c80319c"]);
}

#[test]
fn what_is_refused_before_its_function_is_ready_is_a_span_of_its_callers_trace() {
    let collector = Collector::start();
    let server = launch(&collector)
        .function("typo.wat", "(module (func <x></func>")
        .function("large.wasm", binary::large(4 << 20))
        .flag("--tiers", "off")
        .start();
    let refused = [
        ("/nobody", ("memory-request", "1Mi"), 404, "module-not-found"),
        ("/..%2fhello", ("memory-request", "1Mi"), 400, "bad-module-name"),
        ("/hello", ("memory-request", "much"), 400, "bad-limit"),
        ("/typo", ("memory-request", "1Mi"), 422, "module-invalid"),
        ("/large", ("invocation-timeout", "50ms"), 503, "compiling"),
    ];
    for (path, (name, value), status, code) in refused {
        let request = Request::get(path).header("traceparent", PARENT).header(name, value);
        server.call(request, "").problem(status, code);
        server.logged(&[&format!("trace_id={TRACE}"), &format!("code={code}")]);
    }
    let spans = collector.wait_for(refused.len());
    assert_eq!(spans.len(), refused.len(), "{spans:#?}");
    for (path, _, status, code) in refused {
        let span = spans.iter().find(|span| span.attributes["url.path"] == path).expect("its span");
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, "b7ad6b7169203331"));
        // Names that nobody has are not spans' names: a client could make any number of them.
        assert_eq!((span.name.as_str(), span.attributes.get("http.route")), ("GET", None));
        assert_eq!(
            (&*span.attributes["error.type"], &*span.attributes["http.response.status_code"]),
            (code, &*status.to_string())
        );
        let is_error = status >= 500;
        assert_eq!(span.status, if is_error { (2, code.into()) } else { (0, String::new()) });
    }
    // Nobody is led from a function's figures to what no function was called for.
    wait_until_exported(&server, 5.0);
}

/// The box counts them when the collector has answered.
fn wait_until_exported(server: &WasmBox, number: f64) {
    eventually(&format!("{number} are exported"), || {
        (server.metrics().sum("wasmbox_traces_exported_total", &[]) == number).then_some(())
    });
}

#[test]
fn a_failure_and_a_streamed_answer_are_told() {
    let collector = Collector::start();
    let server = launch(&collector)
        .function("trap.wat", guest::command("unreachable"))
        .function("http.wasm", http_guest())
        .function("busy.wat", guest::busy())
        .start();
    assert_eq!(server.get("/trap").status, 500);
    let spans = collector.wait_for(1);
    let span = server_span(&spans);
    assert_eq!((span.status.clone(), span.attributes["error.type"].as_str()), ((2, "guest-trap".into()), "guest-trap"));
    assert!(span.parent.is_empty() && span.trace.len() == 32 && span.flags == 0x101, "{span:?}");

    server.get("/http/two-steps").ok();
    // Its answer has begun with 200 when it fails.
    assert!(server.try_call(Request::get("/http/trap-later"), "").is_err());
    let limited = Request::get("/busy").header("invocation-timeout", "2s");
    assert_eq!(server.call(limited, "").status, 504);
    let spans = collector.wait_for(4);
    let of = |path: &str| spans.iter().find(|span| span.attributes.get("url.path").is_some_and(|have| have == path));
    let children = |span: &Span| spans.iter().filter(|child| child.parent == span.id).cloned().collect::<Vec<_>>();
    let streamed = of("/http/trap-later").expect("a span");
    assert_eq!(streamed.attributes["http.response.status_code"], "200");
    assert_eq!(streamed.status, (2, "guest-trap".into()));
    assert!(children(streamed).iter().any(|child| child.name == "stream"));
    let late = of("/busy").expect("a span");
    assert_eq!(late.attributes["error.type"], "deadline-exceeded");
    for child in spans.iter().filter(|child| child.kind == 1) {
        let parent = spans.iter().find(|parent| parent.id == child.parent).expect("its parent");
        assert!(parent.start <= child.start && child.start <= child.end && child.end <= parent.end, "{child:?}");
    }
}

#[test]
fn what_its_quota_costs_is_told() {
    let container = TestCgroup::cpu();
    let collector = Collector::start();
    let server = launch(&collector)
        .within(&container)
        .env("ENABLE_CGROUPS", "true")
        .flag("--inline", "off")
        .function("busy.wat", guest::busy())
        .start();
    let limited = Request::get("/busy").header("cpu-quota", "50m").header("invocation-timeout", "3s");
    server.call(limited, "").problem(504, "deadline-exceeded");
    let spans = collector.wait_for(1);
    let invocation = server_span(&spans);
    let child = |name: &str| spans.iter().find(|span| span.name == name && span.parent == invocation.id);
    let (cgroup, exec) = (child("cgroup").expect("a span of its cgroup"), child("exec").expect("a span of its run"));
    assert!(cgroup.end <= exec.start, "{cgroup:?} {exec:?}");
    assert_eq!(exec.events, ["throttled"]);
}

#[test]
fn samplers_decide_for_who_is_not_told() {
    let collector = Collector::start();
    let server = launch(&collector)
        .function("env.wat", guest::command("(call $print_environment)"))
        .function(ENVIRONMENT.0, ENVIRONMENT.1)
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", "0")
        .start();
    let alone = environment(&server, Request::get("/env"));
    assert!(alone["HTTP_TRACEPARENT"].ends_with("-00"), "{alone:?}");
    server.get("/hello").ok();
    let not = PARENT.replace("-01", "-00");
    server.call(Request::get("/hello").header("traceparent", not), "").ok();
    server.call(Request::get("/hello").header("traceparent", PARENT), "").ok();
    let spans = collector.wait_for(1);
    assert_eq!(server_span(&spans).trace, TRACE);
    // The log names all of them.
    let named = || server.log().matches("trace_id=").count();
    eventually("a line for each", || (named() >= 4).then_some(()));
    assert_eq!(named(), 4, "{}", server.log());
}

#[test]
fn metrics_lead_to_traces() {
    let collector = Collector::start();
    let server = launch(&collector).start();
    server.call(Request::get("/hello").header("traceparent", PARENT), "").ok();
    collector.wait_for(1);
    let ask = |server: &WasmBox, accept: &str| {
        exchange(server.admin_address(), Request::get("/metrics").header("accept", accept), "").expect("an answer")
    };
    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let exemplar = format!(" # {{trace_id=\"{TRACE}\"}} ");
    let answer = eventually("an exemplar", || Some(ask(&server, accept)).filter(|got| got.text().contains(&exemplar)));
    assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let line = answer.text().lines().find(|line| line.contains(&exemplar)).expect("a line");
    assert!(line.starts_with("wasmbox_invocation_duration_seconds_bucket{function=\"hello\",le="), "{line}");
    assert!(answer.text().ends_with("# EOF\n"));
    let plain = ask(&server, "text/plain");
    assert!(plain.header("content-type").starts_with("text/plain; version=0.0.4") && !plain.text().contains("# {"));
    let without = WasmBox::with("hello.wat", guest::hello());
    assert!(ask(&without, accept).header("content-type").starts_with("text/plain; version=0.0.4"));
}
