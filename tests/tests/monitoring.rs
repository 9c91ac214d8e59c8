//! Alerts and dashboard (`deployment/chart/monitoring`) ask for what a box exports. That they are PromQL, and fire when they should,
//! `make deploy-test` holds with promtool.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use wasmbox_tests::{Request, WasmBox, guest, metrics::Metrics, workspace};

/// What Prometheus, or its operator, adds to each series.
const OF_TARGETS: [&str; 4] = ["job", "instance", "namespace", "pod"];
/// Prometheus' own series.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

/// The metrics of a box that has done a bit of everything that makes series.
fn metrics() -> Metrics {
    let server = WasmBox::launch().function("hello.wat", guest::hello()).start();
    server.get("/hello").ok();
    server.get("/nothing").problem(404, "module-not-found");
    server.call(Request::get("/hello").header("Memory-Request", "lots"), "").problem(400, "bad-limit");
    server.metrics()
}

/// Labels by metric's name.
fn exported(metrics: &Metrics) -> BTreeMap<String, BTreeSet<String>> {
    let mut exported: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a series and a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
        exported.entry(name.to_owned()).or_default().extend(labels.map(|(label, _)| label.to_owned()));
    }
    exported
}

/// A name that begins where `text` does.
fn name(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len());
    &text[..end]
}

/// Metrics in an expression, each with what its braces ask of labels: label, operator and value, `status=~"5.."`.
fn asked(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let mut asked = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|letter: char| letter.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let word = name(rest);
        rest = &rest[word.len()..];
        if word.starts_with("wasmbox_") || OF_PROMETHEUS.contains(&word) {
            let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
            asked.push((word, inside.split(", ").filter(|matcher| !matcher.is_empty()).collect()));
        }
    }
    asked
}

/// Labels in `by (...)` and `without (...)`.
fn grouped(expression: &str) -> BTreeSet<&str> {
    let lists = expression.split(" by (").skip(1).chain(expression.split(" without (").skip(1));
    lists.filter_map(|rest| rest.split_once(')')).flat_map(|(list, _)| list.split(", ")).collect()
}

/// Strings under the key `expr`, and variables' queries, wherever they are.
fn queries(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(text) if key == "expr" || (key == "query" && text.contains('(')) => {
                        found.push(text.clone());
                    }
                    member => queries(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

/// Expressions of a file of rules: `expr: ...`, on the same line or in the lines that are indented further.
fn expressions(rules: &str) -> Vec<String> {
    let indented = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    let lines: Vec<&str> = rules.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if let Some(expression) = line.trim_start().strip_prefix("expr: ") {
            let more = lines[index + 1..].iter().take_while(|more| indented(more) > indented(line));
            found.push(more.fold(expression.to_owned(), |all, more| all + " " + more.trim()));
        }
    }
    found
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let file = |name: &str| {
        fs::read_to_string(workspace::root().join("deployment/chart/monitoring").join(name)).expect("the file is there")
    };
    let mut all = expressions(&file("rules.yaml"));
    all.extend(expressions(&file("absent.yaml")));
    assert_eq!(all.len(), (file("rules.yaml") + &file("absent.yaml")).matches("- alert:").count());
    queries(&serde_json::from_str(&file("dashboard.json")).expect("JSON"), &mut all);

    let scraped = metrics();
    let exported = exported(&scraped);
    let nothing = BTreeSet::new();
    let mut metrics = BTreeSet::new();
    for expression in &all {
        let asked = asked(expression);
        assert!(!asked.is_empty(), "no metric in: {expression}");
        let mut labels: BTreeSet<&str> = OF_TARGETS.into_iter().collect();
        for (metric, matchers) in &asked {
            let own = match exported.get(*metric) {
                Some(own) => own,
                None if OF_PROMETHEUS.contains(metric) => &nothing,
                None => panic!("a box exports no {metric}: {expression}"),
            };
            labels.extend(own.iter().map(String::as_str));
            metrics.insert(*metric);
            for matcher in matchers.iter().filter(|_| *metric != "ALERTS") {
                let label = name(matcher);
                assert!(
                    own.contains(label) || OF_TARGETS.contains(&label),
                    "{metric} has no label {label}: {expression}"
                );
                // Known from the start, as 0: the first of something that had no series would be no increase.
                let values = matcher[label.len()..].trim_matches(['=', '~', '!', '"']);
                for value in values.split('|').filter(|_| ["code", "gate", "result"].contains(&label)) {
                    let (series, label) = (format!("{metric}{{"), format!("{label}=\"{value}\""));
                    assert!(
                        scraped.text().lines().any(|line| line.starts_with(&series) && line.contains(&label)),
                        "a box does not export {metric} with {label} from the start: {expression}"
                    );
                }
            }
        }
        for label in grouped(expression) {
            assert!(labels.contains(label), "none of its metrics has the label {label}: {expression}");
        }
    }
    // The other way round: nothing that a box exports is forgotten, but for sums and counts of histograms that are shown.
    let family = |metric: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric).to_owned()
    };
    let shown: BTreeSet<String> = metrics.iter().map(|metric| family(metric)).collect();
    let families: BTreeSet<String> = exported.keys().map(|metric| family(metric)).collect();
    assert_eq!(
        families.difference(&shown).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "neither alerts nor dashboard show them"
    );
}
