//! The documents say what the program says: settings, metrics, errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{FromArgMatches, ValueEnum};
use wasmbox::{
    cli::{self, Cli, Command},
    code::{Code, TYPE},
    config::Config,
    develop::templates::Language,
    engine::features::{Enabled, FEATURES},
    explain,
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
    metrics.function("one").observe(200, false, Duration::ZERO, Some(&Duration::ZERO), Some(&usage));
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
    let state = |enabled| match enabled {
        Enabled::Always => "on",
        Enabled::Concurrent => "WASI 0.3",
        Enabled::Never => "off",
    };
    let expected: Vec<[&str; 3]> =
        FEATURES.iter().map(|feature| [feature.name, state(feature.enabled), feature.reason]).collect();
    let api = document("api.md");
    let (_, section) = api.split_once("## WebAssembly features").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = rows(section, "");
    let documented: Vec<Vec<&str>> = rows.iter().map(|cells| cells.iter().map(|cell| &**cell).collect()).collect();
    assert_eq!(documented, expected);
}

/// A test that the threat model names as showing something is there, in the file that is named before it.
#[test]
fn tests_of_the_threat_model_exist() {
    fn sources(directory: &Path, all: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, all);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                all.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut all = Vec::new();
    for directory in ["runtime-http/src", "runtime-http/tests", "tests/tests"] {
        sources(&root.join(directory), &mut all);
    }
    let design = document("design.md");
    let (_, section) = design.split_once("## Threat model").unwrap();
    let mut checked = 0;
    for row in section.lines().filter(|line| line.starts_with("| to ")) {
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap();
        assert!(shown.contains('`'), "no test shows: {row}");
        let mut files: Vec<_> = all.iter().collect();
        for name in shown.split('`').skip(1).step_by(2) {
            if name.contains(['.', '/']) {
                files = all.iter().filter(|(path, _)| path.ends_with(name)).collect();
                assert!(!files.is_empty() || root.join(name).exists(), "there is no file {name}");
            } else {
                let test = format!("fn {name}(");
                assert!(files.iter().any(|(_, text)| text.contains(&test)), "there is no test {name} there: {shown}");
                checked += 1;
            }
        }
    }
    assert!(checked > 100, "{checked}");
}

/// The row of each code in the table of docs/api.md: its further members, sorted.
fn members_in_the_table() -> BTreeMap<&'static str, Vec<String>> {
    let api = document("api.md");
    let rows: Vec<&str> = api.lines().filter(|line| line.starts_with("| ") && line.contains("](errors.md#")).collect();
    let codes = Code::value_variants();
    assert_eq!(rows.len(), codes.len(), "docs/api.md has codes that do not exist, or some twice");
    let members = |code: &Code| {
        let name = code.as_str();
        let start = format!("| {} | [`{name}`](errors.md#{name}) | {} |", code.status().as_u16(), code.title());
        let rest = rows.iter().find_map(|row| row.strip_prefix(&start));
        let rest = rest.unwrap_or_else(|| panic!("docs/api.md has no row {start}"));
        let mut members: Vec<String> = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        members.sort();
        (name, members)
    };
    codes.iter().map(members).collect()
}

#[test]
fn codes_are_in_the_specification() {
    let specification = document("openapi.yaml");
    let schema = specification.split_once("\n    Code:\n").unwrap().1.split_once("\n    Problem:\n").unwrap().0;
    let mut in_schema: Vec<&str> = schema.lines().filter_map(|line| line.trim().strip_prefix("- ")).collect();
    let mut codes: Vec<&str> = Code::value_variants().iter().map(|code| code.as_str()).collect();
    in_schema.sort_unstable();
    codes.sort_unstable();
    assert_eq!(in_schema, codes);
}

/// With what building it takes, as `wasmbox new` says it.
#[test]
fn languages_are_documented() {
    let document = document("writing-functions.md");
    let command = cli::command();
    let flag = command.find_subcommand("new").unwrap().get_arguments().find(|flag| flag.get_id() == "lang").unwrap();
    let languages = flag.get_possible_values();
    let plain = |text: &str| text.replace('`', "").to_lowercase();
    for language in Language::value_variants() {
        let name = language.to_possible_value().unwrap();
        let start = format!("| `{}` | ", name.get_name());
        let row = document.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row {start}"));
        let needs = language.needs();
        let needs = needs.split_once("takes ").or_else(|| needs.split_once(": ")).unwrap().1;
        assert!(plain(row).contains(&plain(needs)), "{needs} is not in {row}");
    }
    assert_eq!(languages.len(), Language::value_variants().len());
}

/// Each code has a section with all its parts, whose example is an answer that the box could give; there are no other sections.
#[test]
fn each_code_is_explained() {
    let members = members_in_the_table();
    let sections: BTreeMap<&str, &str> = explain::sections().collect();
    assert_eq!(sections.keys().collect::<Vec<_>>(), members.keys().collect::<Vec<_>>(), "docs/errors.md");
    assert_eq!(explain::sections().count(), sections.len(), "a section is there twice");
    for code in Code::value_variants() {
        let name = code.as_str();
        let section = sections[name];
        let mut rest = section.strip_prefix(&format!("\n{}: {}.\n\n", code.status(), code.title())).expect(name);
        let mut parts = Vec::new();
        for label in ["**What happened:** ", "**Whose fault:** ", "**What to do:** "] {
            rest = rest.strip_prefix(label).unwrap_or_else(|| panic!("{name} has no {label}"));
            let (part, after) = rest.split_once("\n\n").expect(name);
            assert!(part.len() > 10 && part.ends_with('.'), "{name}: {part}");
            parts.push(part);
            rest = after;
        }
        let who = ["the caller", "the author of the function", "the operator", "the box", "nobody"];
        assert!(who.iter().any(|who| parts[1].starts_with(who)), "{name}: {}", parts[1]);
        let example = rest.strip_prefix("**Example:**\n\n```console\n$ ").expect(name);
        let (request, answer) = example.trim_end().strip_suffix("\n```").expect(name).split_once('\n').expect(name);
        assert!(request.contains("8095") || request.contains("8086"), "{name}: {request}");
        let answer: serde_json::Map<String, serde_json::Value> = serde_json::from_str(answer).expect(name);
        assert_eq!(answer["type"], format!("{TYPE}{name}"));
        assert_eq!(answer["title"], code.title());
        assert_eq!(answer["status"], code.status().as_u16());
        assert_eq!(answer["code"], name);
        assert!(answer["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{name}");
        let standard = ["type", "title", "status", "code", "detail"];
        let further: Vec<&String> = answer.keys().filter(|member| !standard.contains(&member.as_str())).collect();
        assert_eq!(further, members[name].iter().collect::<Vec<_>>(), "further members of {name}");
    }
}
