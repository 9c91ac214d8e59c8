//! A project: a directory with `functions` in it, and what makes them.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::store::{
    file::FunctionsDir,
    name::ModuleName,
    settings::{BadSettings, BuildSettings, FunctionSettings},
};

/// Below a project's directory: what `wasmbox serve` serves there.
pub const FUNCTIONS: &str = "functions";

#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    #[error(
        "{path}: {source}; a project has a directory `functions`: go to one, name one, or make one with `wasmbox new NAME --lang LANGUAGE`"
    )]
    NoFunctions { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Settings(#[from] BadSettings),
    #[error("{file}: {key} of [build] is {}; expected a path in the project's directory, without `..`", value.display())]
    Outside { file: String, key: &'static str, value: PathBuf },
    #[error(
        "{file}: `watch` of [build] is empty; name the files and directories of the sources, watch = [\"src\"] for instance"
    )]
    WatchesNothing { file: String },
}

/// A function that is built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buildable {
    pub name: String,
    pub settings: BuildSettings,
}

/// What a project's directory says.
#[derive(Debug)]
pub struct Project {
    pub directory: PathBuf,
    pub buildable: Vec<Buildable>,
    /// Settings that cannot be used; the others are.
    pub broken: Vec<Broken>,
}

/// A file of settings that cannot be used, and why.
#[derive(Debug)]
pub struct Broken {
    pub path: PathBuf,
    pub error: ProjectError,
}

impl Project {
    /// # Errors
    /// [`ProjectError`], if it is no project.
    pub fn read(directory: &Path) -> Result<Project, ProjectError> {
        let mut project = Project { directory: directory.to_owned(), buildable: Vec::new(), broken: Vec::new() };
        for file in project.files()? {
            let Some(name) = file.strip_suffix(".toml") else { continue };
            match project.build_settings(&file) {
                Ok(Some(settings)) => project.buildable.push(Buildable { name: name.to_owned(), settings }),
                Ok(None) => {}
                Err(error) => project.broken.push(Broken { path: project.functions().join(&file), error }),
            }
        }
        Ok(project)
    }

    pub fn functions(&self) -> PathBuf {
        self.directory.join(FUNCTIONS)
    }

    /// The names of the functions that are there or will be when they are built.
    ///
    /// # Errors
    /// [`ProjectError`], if the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, ProjectError> {
        let is_module = |file: &String| file.ends_with(".wasm") || file.ends_with(".wat");
        let stem = |file: String| file.rsplit_once('.').map_or(file.clone(), |(stem, _)| stem.to_owned());
        let mut names: Vec<String> = self.files()?.into_iter().filter(is_module).map(stem).collect();
        names.extend(self.buildable.iter().map(|buildable| buildable.name.clone()));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Whether there is something to serve at that name.
    pub fn has_module(&self, name: &str) -> bool {
        let name = name.parse::<ModuleName>();
        name.is_ok_and(|name| FunctionsDir::candidates(&name).any(|file| self.functions().join(file).is_file()))
    }

    /// The functions' files that could be asked for, sorted.
    fn files(&self) -> Result<Vec<String>, ProjectError> {
        let path = self.functions();
        let entries = fs::read_dir(&path).map_err(|source| ProjectError::NoFunctions { path: path.clone(), source })?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| ProjectError::Read { path: path.clone(), source })?;
            files.extend(entry.file_name().into_string().ok().filter(|file| ModuleName::is_valid(file)));
        }
        files.sort_unstable();
        Ok(files)
    }

    fn build_settings(&self, file: &str) -> Result<Option<BuildSettings>, ProjectError> {
        let path = self.functions().join(file);
        let text = fs::read_to_string(&path).map_err(|source| ProjectError::Read { path, source })?;
        let Some(settings) = FunctionSettings::read(file, &text)?.build else { return Ok(None) };
        let outside = |path: &&PathBuf| {
            path.as_os_str().is_empty()
                || !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        let named = settings.watch.iter().map(|path| ("watch", path)).chain([("output", &settings.output)]);
        if let Some((key, value)) = named.into_iter().find(|(_, path)| outside(path)) {
            return Err(ProjectError::Outside { file: file.to_owned(), key, value: value.clone() });
        }
        if settings.watch.is_empty() {
            return Err(ProjectError::WatchesNothing { file: file.to_owned() });
        }
        Ok(Some(settings))
    }
}
