//! Collectors that are slow, away, hostile or real.

use std::{fs, time::Duration};

use wasmbox_tests::{
    Authority, Collector, Request, WasmBox, client::exchange, collector::Mood, eventually, guest, temporary::TempDir,
    workspace,
};

use super::{PARENT, TRACE, launch};

#[test]
fn spans_survive_a_collector_that_is_away_for_a_moment() {
    let collector = Collector::start();
    let server = launch(&collector).start();
    server.get("/hello").ok();
    collector.wait_for(1);
    let address = collector.stop();
    server.get("/hello").ok();
    server.logged(&["the collector does not take spans"]);
    for _ in 0..20 {
        server.get("/hello").ok();
    }
    let collector = Collector::at(&address, None);
    assert_eq!(collector.wait_for(21).iter().filter(|span| span.kind == 2).count(), 21);
    server.logged(&["the collector takes spans again"]);
    assert_eq!(server.log().matches("does not take spans").count(), 1, "one line, not one for each span");
    assert_eq!(server.metrics().sum("wasmbox_traces_dropped_total", &[]), 0.0);
}

#[test]
fn a_collector_that_asks_for_a_pause_gets_one_and_a_refused_batch_is_counted() {
    let collector = Collector::start();
    let server = launch(&collector).start();
    collector.set(Mood::Refuses(429, Some(2)));
    server.get("/hello").ok();
    eventually("a refused request", || (collector.requests().len() == 1).then_some(()));
    collector.set(Mood::Takes);
    collector.wait_for(1);
    let times = collector.times();
    assert!(times[1] - times[0] >= Duration::from_secs(2), "{times:?}");
    collector.set(Mood::Refuses(400, None));
    server.get("/hello").ok();
    eventually("a lost batch", || {
        (server.metrics().sum("wasmbox_traces_dropped_total", &["reason=\"refused\""]) == 1.0).then_some(())
    });
    assert_eq!(collector.requests().len(), 3);
}

#[test]
fn a_collector_that_never_answers_costs_spans_and_nothing_else() {
    let collector = Collector::start();
    // 256 places.
    let server = launch(&collector).flag("--memory-limit", "64Mi").start();
    collector.set(Mood::Silent);
    for _ in 0..600 {
        server.get("/hello").ok();
    }
    let lost = server.metrics().sum("wasmbox_traces_dropped_total", &["reason=\"queue\""]);
    assert!((200.0..=344.0).contains(&lost), "{lost} were lost, of 600: up to 128 are sent, and 256 wait");
    let launch = server.stop();
    let log = fs::read_to_string(launch.log_file()).expect("a log");
    assert!(log.contains("were not sent before the end"), "{log}");
}

#[test]
fn a_batch_of_which_spans_are_not_wanted_leads_nobody_to_a_trace() {
    let collector = Collector::start();
    let server = launch(&collector).start();
    collector.set(Mood::Rejects(1));
    server.get("/hello").ok();
    server.logged(&["it does not want 1 of"]);
    eventually("it is counted", || {
        (server.metrics().sum("wasmbox_traces_dropped_total", &["reason=\"refused\""]) == 1.0).then_some(())
    });
    assert_eq!(server.metrics().sum("wasmbox_traces_exported_total", &[]), 0.0);
    let request = Request::get("/metrics").header("accept", "application/openmetrics-text;version=1.0.0");
    let answer = exchange(server.admin_address(), request, "").expect("an answer");
    assert!(answer.text().ends_with("# EOF\n") && !answer.text().contains("trace_id"), "{}", answer.text());
    assert_eq!(collector.requests().len(), 1, "it is not sent again");
}

#[test]
fn a_secret_is_in_no_message() {
    let address = Collector::start().stop();
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("http://{address}/v1/traces?api-key=t0psecret"))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=t0psecret")
        .env("OTEL_TRACES_SAMPLER", "sometimes")
        .start();
    server.logged(&["OTEL_TRACES_SAMPLER", "sometimes", "ignored"]);
    server.get("/hello").ok();
    server.logged(&["the collector does not take spans", "/v1/traces"]);
    assert!(!server.log().contains("t0psecret"), "{}", server.log());
    let refused = WasmBox::launch().env("OTEL_EXPORTER_OTLP_HEADERS", "t0psecret").refusal();
    assert!(refused.contains("OTEL_EXPORTER_OTLP_HEADERS") && !refused.contains("t0psecret"), "{refused}");
    let refused = WasmBox::launch().flag("--otlp-headers", "t0psecret").refusal();
    assert!(refused.contains("--otlp-headers") && !refused.contains("t0psecret"), "{refused}");
}

#[test]
fn an_answer_of_a_gigabyte_is_not_read() {
    let collector = Collector::start();
    let server = launch(&collector).start();
    collector.set(Mood::Talks(1 << 30));
    server.get("/hello").ok();
    collector.wait_for(1);
    collector.set(Mood::Takes);
    server.get("/hello").ok();
    collector.wait_for(2);
    assert!(collector.talked() < 64 << 20, "{} bytes were sent", collector.talked());
    eventually("both are taken", || (server.metrics().sum("wasmbox_traces_exported_total", &[]) == 2.0).then_some(()));
}

#[test]
fn what_was_not_sent_yet_is_sent_at_the_end() {
    let collector = Collector::start();
    let server = launch(&collector).start();
    for _ in 0..300 {
        server.get("/hello").ok();
    }
    drop(server);
    assert_eq!(collector.wait_for(300).iter().filter(|span| span.kind == 2).count(), 300);
    assert!(collector.largest() < 1 << 20, "{}", collector.largest());
}

#[test]
fn a_collector_of_https_is_trusted_by_who_vouches() {
    let authority = Authority::new();
    let collector = Collector::at("127.0.0.1:0", Some(authority.server(&["127.0.0.1"], &["http/1.1"])));
    let endpoint = format!("https://{}", collector.address());
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).flag("--otlp-endpoint", &endpoint);
    let file = launch.directory().join("authority.pem");
    authority.write(&file);
    let server = launch.flag("--otlp-ca", file.display()).start();
    server.get("/hello").ok();
    collector.wait_for(1);
    drop(server);

    let stranger = WasmBox::launch().function("hello.wat", guest::hello()).flag("--otlp-endpoint", &endpoint).start();
    stranger.get("/hello").ok();
    stranger.logged(&["the collector does not take spans", "--otlp-ca"]);
}

#[test]
fn a_bad_setting_is_refused() {
    for (name, value, says) in [
        ("--otlp-endpoint", "localhost:4318", "http://HOST:PORT"),
        ("--otlp-endpoint", "grpc://localhost:4317", "http://HOST:PORT"),
        ("--otlp-headers", "no-value", "NAME=VALUE"),
        ("--otlp-sampler", "sometimes", "parentbased_always_on"),
        ("--otlp-sampler-arg", "2", "0 to 1"),
    ] {
        let said = WasmBox::launch().flag(name, value).refusal();
        assert!(said.contains(says) && said.contains(name), "{said}");
    }
    let missing = WasmBox::launch().flag("--otlp-endpoint", "https://localhost").flag("--otlp-ca", "/nowhere.pem");
    let said = missing.refusal();
    assert!(said.contains("--otlp-ca") && said.contains("/nowhere.pem"), "{said}");
}

/// The real collector, with the receiver that all have, and what it says of each span.
#[test]
#[ignore = "needs Go: make e2e"]
fn opentelemetrys_collector_takes_them() {
    let directory = TempDir::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let config = directory.path().join("config.yaml");
    let text = format!(
        "receivers:\n  otlp:\n    protocols:\n      http:\n        endpoint: 127.0.0.1:{port}\n\
         exporters:\n  debug:\n    verbosity: detailed\n    sampling_initial: 1000\n\
         service:\n  telemetry:\n    metrics:\n      level: none\n  pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [debug]\n"
    );
    fs::write(&config, text).expect("a file");
    let said = directory.path().join("said");
    let log = fs::File::create(&said).expect("a file");
    let mut collector = std::process::Command::new(workspace::tool("go/otelcol"))
        .arg("--config")
        .arg(format!("file:{}", config.display()))
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .spawn()
        .expect("make e2e builds it");
    let read = || fs::read_to_string(&said).unwrap_or_default();
    let server = WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("trap.wat", guest::command("unreachable"))
        .flag("--otlp-endpoint", format!("http://127.0.0.1:{port}"))
        .start();
    eventually("the collector is there", || std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
    let request = Request::get("/hello").header("traceparent", PARENT).header("tracestate", "a=1");
    let id = server.call(request, "").ok().headers["wasmbox-invocation-id"].to_str().expect("digits").to_owned();
    assert_eq!(server.get("/trap").status, 500);
    let text = eventually("both invocations", || {
        let text = read();
        (text.matches("Kind           : Server").count() == 2).then_some(text)
    });
    drop(server);
    let _ = collector.kill();
    let _ = collector.wait();
    for expected in [
        format!("Trace ID       : {TRACE}"),
        "Parent ID      : b7ad6b7169203331".into(),
        "Name           : GET /hello".into(),
        "Name           : exec".into(),
        "Kind           : Internal".into(),
        "Status code    : Error".into(),
        "Status message : guest-trap".into(),
        "TraceState     : a=1".into(),
        format!("-> faas.invocation_id: Str({id})"),
        "-> http.response.status_code: Int(200)".into(),
        "-> service.name: Str(wasmbox)".into(),
    ] {
        assert!(text.contains(&expected), "{expected} is not in what the collector got:\n{text}");
    }
}
