use ratatui::{Terminal, backend::TestBackend};
use serde_json::json;

use super::*;

const HOSTILE: &str = "evil\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}name";

fn counts() -> serde_json::Value {
    json!({ "calls": 1234, "errors": 5, "cpu_seconds": 1.5, "calls_per_second": 12.5, "errors_per_second": 0.25, "cpu_cores": 0.125 })
}

fn overview(name: &str, functions: usize) -> Overview {
    let mut row = json!({
        "name": name, "state": name, "code_bytes": 1000, "running": 2, "memory_peak_bytes": 65536, "cpu_limit_cores": 0.5, "memory_limit_bytes": 209715200_u64, "p50_seconds": 0.001, "p99_seconds": 0.25,
    });
    row.as_object_mut().unwrap().extend(counts().as_object().unwrap().clone());
    let failure = json!({
        "invocation_id": "bb87b5f008da62970000000000000000", "function": name, "at_unix_ms": 1, "status": 500, "code": name, "reason": name,
        "stderr": format!("first\nsecond {name}\nlast words"),
    });
    let load = json!({ "invocations": 3, "units": 600 });
    let document = json!({
        "status": {
            "version": name, "pod": name, "pid": 1, "uptime_seconds": 61.0,
            "readiness": { "ready": true, "draining": false, "utilization": 0.5, "samples": 1, "window": 5, "threshold": 0.9, "share": 0 },
            "capacity": load, "queue_units": 10, "in_flight": load, "queued": load, "closed_gates": [name], "workers": 1, "connections": 7,
            "memory": { "working_set_bytes": 536870912_u64, "limit_bytes": 1073741824_u64, "source": "cgroup" }, "cpu_cores": 1.5,
            "reporter_connected": false, "functions": {}, "invocations": {}, "rejected": { name: 4 },
        },
        "cpu_limit_cores": 2.0, "totals": counts(), "latency": { "bounds_us": [100], "counts": [1, 2] }, "evicted": 9, "growth_waits": 0,
        "compiling": { "running": 1, "places": 2, "waiting": 3, "baseline": 4, "loading": [{ "file": name, "seconds_left": 2.5 }] },
        "functions": { "all": functions, "matching": functions, "offset": 0, "rows": vec![row; functions.min(50)] },
        "failures": [failure], "uploads": false,
    });
    serde_json::from_value(document).unwrap()
}

fn drawn(width: u16, height: u16, shows: Shows, overview: &Overview) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, "127.0.0.1:8086", shows, &Query::default(), overview)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |row: u16| (0..width).map(|column| buffer[(column, row)].symbol()).collect::<String>();
    (0..height).map(line).collect()
}

#[test]
fn all_that_matters_is_on_the_screen() {
    let lines = drawn(140, 30, Shows::All, &overview("hello", 10_000));
    let text = lines.join("\n");
    for part in [
        "WasmBox ready on hello, asked at 127.0.0.1:8086, up 61 s",
        "calls 12.5 /s, errors 0.25 /s, running 3 of 3, waiting 3",
        "evicted 9, refused 4, connections 7, held back for want of hello",
        "compiling 1 of 2, 3 waiting, 4 to be optimised  hello (about 3 s)",
        "1.50 of         2 cores",
        "512.0 MiB of   1.0 GiB",
        "FUNCTION, 1 to 50 of 10000 by cpu",
        "FAILED LAST",
        "hello  500 hello  bb87b5f008da62970000000000000000  hello",
        "    last words",
        "q ends",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let row = lines.iter().find(|line| line.starts_with("hello ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        ["hello", "hello", "2", "12.5", "0.25", "1234", "5", "0.125", "25", "64.0", "KiB", "0", "250", "ms"]
    );
    let top = drawn(140, 30, Shows::Functions, &overview("hello", 3)).join("\n");
    assert!(!top.contains("FAILED LAST") && top.contains("FUNCTION, 1 to 3 of 3 by cpu"), "{top}");
}

#[test]
fn hostile_text_is_text_in_any_terminal() {
    let overview = overview(HOSTILE, 3);
    for (width, height) in [(200, 40), (80, 24), (20, 5), (1, 1)] {
        for line in drawn(width, height, Shows::All, &overview) {
            let harmful = |letter: char| letter.is_control() || ('\u{2028}'..='\u{202e}').contains(&letter);
            assert!(!line.contains(harmful), "{line:?}");
        }
    }
    let text = drawn(200, 40, Shows::All, &overview).join("\n");
    assert!(text.contains("evil\\u{1b}[2J"), "{text}");
}
