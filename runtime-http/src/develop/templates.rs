//! What `wasmbox new` writes: the files of `templates/`, with the function's name in them.

/// In which a function is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    Rust,
    Python,
    Js,
    Go,
    C,
    Assemblyscript,
    Wat,
}

/// What stands for the function's name in files and in their names.
const NAME: &str = "{{name}}";
/// What stands for the answer that the test expects.
const ANSWER: &str = "{{answer}}";

/// Path and content, each of which has [`NAME`] in it.
type File = (&'static str, &'static str);

/// The files below a directory of `templates/`.
macro_rules! files {
    ($directory:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../templates/", $directory, "/", $path)))),+]
    };
}

/// In each project.
const COMMON: &[File] = files!("common": "README.md", "gitignore", "test.sh");

impl Language {
    const fn own_files(self) -> &'static [File] {
        match self {
            Language::Rust => files!("rust": "Cargo.toml", "build.sh", "functions/{{name}}.toml", "src/main.rs"),
            Language::Python => {
                files!("python": "app.py", "build.sh", "functions/{{name}}.toml", "requirements.txt", "wit/world.wit")
            }
            Language::Js => files!(
                "js": "app.js",
                "build.sh",
                "functions/{{name}}.toml",
                "package.json",
                "package-lock.json",
                "wit/deps/clocks.wit",
                "wit/deps/http.wit",
                "wit/deps/io.wit",
                "wit/world.wit",
            ),
            Language::Go => files!("go": "build.sh", "functions/{{name}}.toml", "go.mod", "main.go"),
            Language::C => files!("c": "build.sh", "functions/{{name}}.toml", "src/main.c"),
            Language::Assemblyscript => files!(
                "assemblyscript": "assembly/index.ts",
                "build.sh",
                "functions/{{name}}.toml",
                "package.json",
                "package-lock.json",
            ),
            Language::Wat => files!("wat": "functions/{{name}}.toml", "functions/{{name}}.wat"),
        }
    }

    /// What building it takes beside wasmbox.
    pub const fn needs(self) -> &'static str {
        match self {
            Language::Rust => "Building it takes Rust, from https://rustup.rs",
            Language::Python => "Building it takes Python 3.10 or later with venv, and gets componentize-py from PyPI",
            Language::Js => "Building it takes Node.js 20 or later with npm, and gets componentize-js from npm",
            Language::Go => "Building it takes Go 1.21 or later, from https://go.dev/dl",
            Language::C => {
                "Building it takes clang for WASI. On Debian and Ubuntu: apt install clang lld wasi-libc libclang-rt-dev-wasm32"
            }
            Language::Assemblyscript => {
                "Building it takes Node.js 20 or later with npm, and gets its compiler from npm"
            }
            Language::Wat => "It needs no build: wasmbox reads the text",
        }
    }

    /// To `--arg Ada --data 'some text'`.
    const fn answer(self) -> &'static str {
        match self {
            // Without a library, numbers are more work than they teach.
            Language::Wat => "some text",
            _ => "Hello, Ada! You sent 9 bytes.",
        }
    }

    /// All files of a project, with their paths in it.
    pub fn files(self, name: &str) -> impl Iterator<Item = (String, String)> {
        let filled = move |text: &str| text.replace(NAME, name).replace(ANSWER, self.answer());
        // Under its real name it would be heeded here, too.
        let path = move |path: &str| if path == "gitignore" { ".gitignore".to_owned() } else { filled(path) };
        COMMON.iter().chain(self.own_files()).map(move |(file, content)| (path(file), filled(content)))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use clap::ValueEnum;

    use super::*;
    use crate::store::settings::FunctionSettings;

    fn below(directory: &Path, root: &Path, files: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, root, files);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn no_file_is_forgotten() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let own = Language::value_variants()
            .iter()
            .map(|language| (language.to_possible_value().unwrap().get_name().to_owned(), language.own_files()));
        let mut directories = BTreeSet::new();
        for (directory, files) in own.chain([("common".to_owned(), COMMON)]) {
            let mut there = BTreeSet::new();
            let root = templates.join(&directory);
            below(&root, &root, &mut there);
            assert_eq!(there, files.iter().map(|(path, _)| (*path).to_owned()).collect(), "{directory}");
            directories.insert(directory);
        }
        let there = fs::read_dir(&templates).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(there.collect::<BTreeSet<_>>(), directories);
    }

    #[test]
    fn nothing_is_left_open_and_settings_are_good() {
        for language in Language::value_variants() {
            let mut has_settings = false;
            for (path, content) in language.files("hello") {
                assert!(!path.contains("{{") && !content.contains("{{"), "{language:?}: {path}");
                if path == "functions/hello.toml" {
                    let settings = FunctionSettings::read(&path, &content).unwrap();
                    assert_eq!(settings.build.is_none(), *language == Language::Wat);
                    has_settings = true;
                }
            }
            assert!(has_settings, "{language:?}");
        }
    }
}
