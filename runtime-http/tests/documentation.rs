//! The documents say what the program says: settings, metrics, errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use wasmbox::{cli, invocation::Usage, metrics::Metrics};

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// The cells of all rows of tables whose first cell begins with `start`.
fn rows(document: &str, start: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let is_row = |line: &&str| line.strip_prefix("| `").is_some_and(|cell| cell.starts_with(start));
    document.lines().filter(is_row).map(cells).collect()
}

/// What stands in `[name: ...]` of a help text.
fn in_brackets<'a>(help: &'a str, name: &str) -> &'a str {
    let text = help.split_once(&format!("[{name}: ")).map_or("", |(_, text)| text);
    text.split_once(']').map_or("", |(text, _)| text)
}

#[test]
fn settings_are_documented_with_their_variables_and_defaults() {
    let command = cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let mut expected = BTreeMap::new();
    for argument in serve.get_arguments() {
        let Some(flag) = argument.get_long().filter(|flag| !["config", "help", "version"].contains(flag)) else {
            continue;
        };
        let help = argument.get_help().unwrap().to_string();
        let value = argument.get_value_names().map_or_else(|| flag.to_uppercase(), |names| names[0].to_string());
        expected.insert(
            format!("--{flag} {value}"),
            [in_brackets(&help, "env").to_owned(), in_brackets(&help, "default").to_owned()],
        );
    }
    let documented: BTreeMap<String, [String; 2]> = rows(&document("operations.md"), "--")
        .into_iter()
        .map(|cells| (cells[0].clone(), [cells[1].clone(), cells[2].clone()]))
        .collect();
    for (flag, values) in &expected {
        assert_eq!(documented.get(flag), Some(values), "docs/operations.md, {flag}");
    }
    assert_eq!(documented.len(), expected.len(), "docs/operations.md has settings that do not exist");
}

#[test]
fn metrics_are_documented_with_their_types() {
    let metrics = Metrics::new();
    // Each shows only what it was used for.
    let usage = Usage::default();
    metrics.function("one").observe(200, Duration::ZERO, Some(&Duration::ZERO), Some(&usage));
    metrics.cache.with_label_values(&["disk", "hit"]).inc();
    metrics.rejected.with_label_values(&["bad-limit"]).inc();
    let text = String::from_utf8(metrics.render()).unwrap();
    let expected: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let rows = rows(&document("operations.md"), "wasmbox_");
    let documented: BTreeMap<&str, &str> = rows.iter().map(|cells| (&*cells[0], &*cells[1])).collect();
    assert_eq!(documented, expected);
}

#[test]
fn both_lists_of_errors_are_the_same() {
    let api = document("api.md");
    let mut in_table: Vec<String> = api
        .lines()
        .filter_map(|line| {
            let (status, rest) = line.strip_prefix("| ")?.split_once(" | `")?;
            let is_error = status.parse::<u16>().is_ok_and(|status| status >= 400);
            is_error.then(|| rest.split('`').next().unwrap().to_owned())
        })
        .collect();
    let specification = document("openapi.yaml");
    let schema = specification.split_once("\n    Code:\n").unwrap().1.split_once("\n    Problem:\n").unwrap().0;
    let mut in_schema: Vec<String> =
        schema.lines().filter_map(|line| Some(line.trim().strip_prefix("- ")?.to_owned())).collect();
    in_table.sort();
    in_schema.sort();
    assert!(in_table.len() > 20);
    assert_eq!(in_table, in_schema);
}
