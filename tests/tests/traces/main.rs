//! Traces: which trace an invocation is in, what its guest is told of it, and what a collector gets.
//!
//! - [`context`]: headers; [`spans`]: what a collector gets; [`collectors`]: of all kinds

mod collectors;
mod context;
mod spans;

use std::collections::HashMap;

use wasmbox_tests::{Collector, WasmBox, collector::Span, guest, server::Launch};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const ENVIRONMENT: (&str, &str) = ("env.toml", "environment = \"cgi\"");

fn launch(collector: &Collector) -> Launch {
    WasmBox::launch().function("hello.wat", guest::hello()).flag("--otlp-endpoint", collector.endpoint())
}

/// What of a trace the function `env` sees.
fn environment(server: &WasmBox, request: http::request::Builder) -> HashMap<String, String> {
    let answer = server.call(request, "").ok();
    answer
        .text()
        .split(['\0', '\n'])
        .filter_map(|line| line.split_once('='))
        .map(|(a, b)| (a.into(), b.into()))
        .collect()
}

fn server_span(spans: &[Span]) -> &Span {
    let mut servers = spans.iter().filter(|span| span.kind == 2);
    let (Some(server), None) = (servers.next(), servers.next()) else { panic!("not one invocation: {spans:#?}") };
    server
}
