//! The modules depend on each other in one direction only: docs/design.md has the picture. And no file of the repository is long.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Of each module those that it uses, with a file in which it does.
type Graph = BTreeMap<String, BTreeMap<String, PathBuf>>;

/// The most lines that a file may have, tests included.
const MOST_LINES: usize = 350;

/// All sources below, but not what was built or installed there.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().expect("its type").is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&&*name) {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What comes before the tests in a file, without comments.
fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    product.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The modules that `code` names by `crate::`, also several in braces.
fn used(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
    };
    let mut all = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            all.insert(name(rest));
            continue;
        };
        let (mut depth, mut is_next) = (1, true);
        for (place, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' if depth == 1 => is_next = true,
                _ if is_next && depth == 1 && !character.is_whitespace() => {
                    all.insert(name(&group[place..]));
                    is_next = false;
                }
                _ => {}
            }
        }
    }
    all
}

fn graph() -> Graph {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut graph = Graph::new();
    for file in files {
        let below = file.strip_prefix(&root).expect("it was found there").to_owned();
        let first = below.iter().next().expect("a name").to_string_lossy();
        let module = first.trim_end_matches(".rs");
        if ["lib", "main"].contains(&module) || below.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("text");
        let uses = graph.entry(module.to_owned()).or_default();
        for other in used(&code(&text)).into_iter().filter(|other| other != module) {
            uses.entry(other).or_insert_with(|| below.clone());
        }
    }
    let names: BTreeSet<String> = graph.keys().cloned().collect();
    for uses in graph.values_mut() {
        uses.retain(|name, _| names.contains(name));
    }
    graph
}

/// Takes away whatever uses nothing that is left, again and again. Circles are left.
fn circles(mut graph: Graph) -> Graph {
    loop {
        let free: Vec<String> =
            graph.iter().filter(|(_, uses)| uses.is_empty()).map(|(module, _)| module.clone()).collect();
        if free.is_empty() {
            return graph;
        }
        for module in free {
            graph.remove(&module);
            graph.values_mut().for_each(|uses| drop(uses.remove(&module)));
        }
    }
}

#[test]
fn they_depend_in_one_direction() {
    let graph = graph();
    assert!(graph.len() > 50 && graph["api"].contains_key("sandbox"), "{graph:?}");
    let circles = circles(graph);
    assert!(circles.is_empty(), "circles among modules, with a file for each step: {circles:#?}");
}

/// Each module of the picture may use those below it, and none beside it or above it.
#[test]
fn the_picture_is_true() {
    let design =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/design.md")).expect("a document");
    let picture = design.split("```text\nserve").nth(1).and_then(|rest| rest.split("```").next()).expect("the picture");
    let layers: Vec<Vec<&str>> = format!("serve{picture}")
        .lines()
        .map(|line| line.split_whitespace().map(|word| word.to_owned().leak() as &str).collect())
        .collect();
    let layer = |module: &str| layers.iter().position(|modules| modules.contains(&module));
    let graph = graph();
    for module in layers.iter().flatten() {
        assert!(graph.contains_key(*module), "{module} is in the picture, and there is none");
    }
    for (module, uses) in &graph {
        for (other, file) in uses {
            if let (Some(above), Some(below)) = (layer(module), layer(other)) {
                assert!(above < below, "{module} uses {other} in {}, against the picture", file.display());
            }
        }
    }
}

/// Both could be crates by what they use; docs/design.md says why they are none.
#[test]
fn admission_and_sandbox_know_nothing_above_them() {
    let graph = graph();
    let used = |module: &str| graph[module].keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(used("admission"), ["limits", "metrics"]);
    let sandbox = used("sandbox");
    for other in ["admission", "api", "cgroup", "config", "core", "server", "store", "upload", "worker"] {
        assert!(graph.contains_key(other), "{other} is no module any more");
        assert!(!sandbox.contains(&other), "sandbox uses {other} in {}", graph["sandbox"][other].display());
    }
}

#[test]
fn no_file_is_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 600, "{} files are not all", files.len());
    let lines = |file: &PathBuf| fs::read_to_string(file).expect("text").lines().count();
    let name = |file: &PathBuf| file.strip_prefix(&root).expect("it was found there").display().to_string();
    let all = files.iter().map(|file| (lines(file), name(file)));
    let mut long: Vec<(usize, String)> = all.filter(|(lines, _)| *lines > MOST_LINES).collect();
    long.sort();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:#?}");
}

#[test]
fn names_are_found() {
    let text = "use crate::{\n    api::{Peers, code::x},\n    io,\n};\n// crate::none\nfn f() { crate::server::g() }\n#[cfg(test)]\nmod tests {\n use crate::tests_alone;\n}";
    assert_eq!(used(&code(text)).into_iter().collect::<Vec<_>>(), ["api", "io", "server"]);
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*to).to_owned()).or_default();
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned(), PathBuf::new());
        }
        graph
    };
    assert!(circles(graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    assert_eq!(circles(graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")])).len(), 3);
}
