//! The commands that documents tell their readers to type: fenced blocks whose language is `sh` or `console`, or `cron`, of whose lines the command is meant.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::workspace;

/// Directories without documents of this project.
const LEFT_OUT: [&str; 2] = ["target", "node_modules"];
/// Beginnings of lines that stand in a block for commands only.
const COMMANDS: [&str; 8] = ["$ ", "cargo ", "curl ", "helm ", "kubectl ", "make ", "sudo ", "wasmbox "];
/// Units in which the same quantity may be printed on another machine.
const UNITS: [&[&str]; 2] = [&["ns", "us", "ms", "s"], &["B", "KiB", "MiB", "GiB"]];

/// A block of commands.
#[derive(Debug, Clone)]
pub struct Block {
    /// From the workspace's root.
    pub file: String,
    /// The heading above it.
    pub heading: String,
    pub language: String,
    pub steps: Vec<Step>,
}

/// A command, and the lines behind it, which are what it prints. None are shown if the block is no `console`.
#[derive(Debug, Clone)]
pub struct Step {
    pub command: String,
    pub expected: String,
}

impl Block {
    /// What names it, with its file.
    pub fn first(&self) -> &str {
        &self.steps[0].command
    }

    /// Whether its first command begins with `key`, or its heading is that.
    pub fn is(&self, key: &str) -> bool {
        self.first().starts_with(key) || self.heading == key
    }
}

impl Step {
    /// `...` at the end stands for the rest of the line. A compiler may have said something before. What was measured may differ: numbers with
    /// a decimal point or five digits, long hexadecimal numbers, and units.
    pub fn is_met_by(&self, printed: &str) -> bool {
        let (expected, printed) = (self.expected.trim_end(), printed.trim_end());
        if let Some(beginning) = expected.strip_suffix("...") {
            return printed.starts_with(beginning);
        }
        let (expected, printed): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), printed.lines().collect());
        if expected.is_empty() {
            return printed.is_empty();
        }
        let Some(before) = printed.len().checked_sub(expected.len()) else { return false };
        expected.iter().zip(&printed[before..]).all(|(expected, printed)| are_alike(expected, printed))
    }
}

/// Whether a line is the expected one, but for what was measured.
fn are_alike(expected: &str, printed: &str) -> bool {
    let words = |line: &str| line.split(' ').map(|word| bare(word).to_owned()).collect::<Vec<_>>();
    let (expected, printed) = (words(expected), words(printed));
    let is_alike = |(expected, printed): (&String, &String)| {
        let is_unit = |units: &&[&str]| units.contains(&&**expected) && units.contains(&&**printed);
        expected == printed
            || is_measured(expected) && is_number(printed)
            || is_identifier(expected) && is_identifier(printed)
            || UNITS.iter().any(is_unit)
    };
    expected.len() == printed.len() && expected.iter().zip(&printed).all(is_alike)
}

/// A value of JSON, without what is around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|character| matches!(character, '"' | ',' | ';' | '\\'))
}

fn is_number(word: &str) -> bool {
    word.parse::<f64>().is_ok()
}

fn is_measured(word: &str) -> bool {
    is_number(word) && (word.contains('.') || word.len() > 4)
}

fn is_identifier(word: &str) -> bool {
    word.len() >= 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Those blocks of a document.
///
/// # Panics
/// If `key` is that of none, or of several.
pub fn named(file: &str, keys: &[&str]) -> Vec<Block> {
    let blocks = blocks(file);
    let one = |key: &&str| {
        let found: Vec<&Block> = blocks.iter().filter(|block| block.is(key)).collect();
        let [block] = found[..] else { panic!("{file} has {} blocks that begin with {key:?}, not one", found.len()) };
        block.clone()
    };
    keys.iter().map(one).collect()
}

/// The blocks of all documents.
///
/// # Panics
/// If a document cannot be read, or a block cannot be understood.
pub fn all() -> Vec<Block> {
    let root = workspace::root();
    let mut files = Vec::new();
    find(root, &mut files);
    files.sort();
    let name = |path: &PathBuf| path.strip_prefix(root).expect("it is in there").display().to_string();
    files.iter().flat_map(|path| blocks(&name(path))).collect()
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the project") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        // What is a link is a document elsewhere.
        let kind = entry.file_type().expect("the kind of an entry");
        if kind.is_dir() && !name.starts_with('.') && !LEFT_OUT.contains(&&*name) {
            find(&path, files);
        } else if kind.is_file() && path.extension().is_some_and(|ending| ending == "md") {
            files.push(path);
        }
    }
}

/// The blocks of a document, in their order.
///
/// # Panics
/// If it cannot be read, or a block does not end, begins with output, or has commands without saying so.
pub fn blocks(file: &str) -> Vec<Block> {
    let text = fs::read_to_string(workspace::root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    parse(file, &text)
}

/// As [`blocks`], of a text.
///
/// # Panics
/// As [`blocks`].
pub fn parse(file: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut heading) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with('#') {
            line.trim_matches(['#', ' ']).clone_into(&mut heading);
        }
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        // Those in lists are indented.
        let indent = line.len() - line.trim_start().len();
        let mut block = Vec::new();
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("{file}: a block does not end"));
            if line.trim() == "```" {
                break;
            }
            block.push(line.get(indent..).unwrap_or_default());
        }
        let steps = match language {
            "sh" => script(&block),
            "cron" => block.iter().map(|line| step(line.splitn(6, ' ').last().expect("a line has a part"))).collect(),
            "console" => dialogue(file, &block),
            _ => {
                let command = block.iter().find(|line| COMMANDS.iter().any(|start| line.starts_with(start)));
                assert!(command.is_none() || !language.is_empty(), "{file}: this block is `sh`: {command:?}");
                continue;
            }
        };
        assert!(!steps.is_empty(), "{file}, {heading}: a block without commands");
        blocks.push(Block { file: file.to_owned(), heading: heading.clone(), language: language.to_owned(), steps });
    }
    blocks
}

fn step(command: &str) -> Step {
    Step { command: command.to_owned(), expected: String::new() }
}

/// A line is a command, unless the one before goes on.
fn script(lines: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in lines.iter().filter(|line| !line.is_empty()) {
        match steps.last_mut() {
            Some(last) if last.command.ends_with('\\') || line.starts_with(' ') || *line == "done" => {
                last.command.extend(["\n", line]);
            }
            _ => steps.push(step(line)),
        }
    }
    steps
}

/// A line with `$`, and the lines behind it.
fn dialogue(file: &str, lines: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(step(command)),
            (None, Some(last)) => last.expected.extend([line, "\n"]),
            (None, None) => panic!("{file}: output without a command: {line}"),
        }
    }
    steps
}
