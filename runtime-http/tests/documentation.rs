//! The documents say what the program says: settings, metrics, errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use clap::FromArgMatches;
use wasmbox::{
    cli::{self, Cli, Command},
    config::Config,
    engine::features::FEATURES,
    invocation::Usage,
    metrics::Metrics,
};

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

/// A default that is a value can be set, and then nothing changes.
#[test]
fn documented_defaults_are_the_defaults() {
    let config = |arguments: &[String]| {
        let words = ["wasmbox", "serve"].into_iter().map(str::to_owned).chain(arguments.iter().cloned());
        match Cli::from_arg_matches(&cli::command().get_matches_from(words)).unwrap().command {
            Command::Serve(serve) => Config::new(serve.settings),
            _ => panic!("it was `serve`"),
        }
    };
    let usual = config(&[]).unwrap();
    let mut checked = 0;
    for row in rows(&document("operations.md"), "--") {
        let (flag, default) = (row[0].split(' ').next().unwrap(), &row[2]);
        // Words, or nothing: there is none, or it follows from something else.
        let is_value =
            !default.is_empty() && !default.contains([' ', '$', '/']) && !["none", "auto"].contains(&&**default);
        if is_value {
            assert_eq!(config(&[format!("{flag}={default}")]).unwrap(), usual, "{flag} {default}");
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
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
fn features_of_modules_are_documented() {
    let state = |enabled| if enabled { "on" } else { "off" };
    let expected: Vec<[&str; 3]> =
        FEATURES.iter().map(|feature| [feature.name, state(feature.enabled), feature.reason]).collect();
    let api = document("api.md");
    let (_, section) = api.split_once("## WebAssembly features").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = rows(section, "");
    let documented: Vec<Vec<&str>> = rows.iter().map(|cells| cells.iter().map(|cell| &**cell).collect()).collect();
    assert_eq!(documented, expected);
}

/// A test that the threat model names as showing something is there.
#[test]
fn tests_of_the_threat_model_exist() {
    fn sources(directory: &Path, all: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    for directory in ["src", "tests", "../tests/tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut all);
    }
    let design = document("design.md");
    let (_, section) = design.split_once("## Threat model").unwrap();
    let mut checked = 0;
    for row in section.lines().filter(|line| line.starts_with("| to ")) {
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap();
        assert!(shown.contains('`'), "no test shows: {row}");
        for name in shown.split('`').skip(1).step_by(2).filter(|name| !name.contains(['.', '/'])) {
            assert!(all.contains(&format!("fn {name}(")), "there is no test {name}");
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
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
