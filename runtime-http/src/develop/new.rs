//! `wasmbox new`: a project of one function, to begin with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, ExitCode},
    str::FromStr,
};

use super::templates::Language;

/// Of a new function: fit for the package of each language, and for a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionName(String);

impl FunctionName {
    const LONGEST: usize = 60;
}

impl FromStr for FunctionName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<FunctionName, &'static str> {
        let is_of_it = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_good = (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(is_of_it)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-');
        if is_good {
            Ok(FunctionName(text.to_owned()))
        } else {
            Err("expected at most 60 lower-case letters, digits and hyphens, the first of them a letter")
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Name of the function, and of the directory
    pub name: FunctionName,
    /// Language of the function
    #[arg(long, value_name = "LANGUAGE")]
    pub lang: Language,
    /// Directory to make instead of NAME
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error("{} is there already, and not empty: choose another name, or another place with --directory", path.display())]
    Occupied { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Makes the project: all of it, or nothing.
///
/// # Errors
/// [`NewError`], if it cannot be made.
pub fn new(arguments: &NewArgs) -> Result<ExitCode, NewError> {
    let NewArgs { name: FunctionName(name), lang, directory } = arguments;
    let path = directory.clone().unwrap_or_else(|| name.into());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| NewError::Write { path, source }
    };
    let is_occupied = match fs::read_dir(&path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => true,
        Err(error) => return Err(failed(&path)(error)),
    };
    if is_occupied {
        return Err(NewError::Occupied { path });
    }
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed(parent))?;
    let part = parent.join(format!(".{name}.{}.part", process::id()));
    // A directory that is empty is replaced.
    let made = write(&part, *lang, name).and_then(|()| fs::rename(&part, &path).map_err(failed(&path)));
    if let Err(error) = made {
        // It may never have been there.
        let _ = fs::remove_dir_all(&part);
        return Err(error);
    }
    eprintln!("{} is there. Now:\n", path.display());
    let call = format!("wasmbox invoke {name} --data 'some text'");
    for (command, purpose) in [
        (&format!("cd {}", path.display()), ""),
        (&"wasmbox dev".to_owned(), "# builds and serves it, and again when it changes"),
        (&call, "# calls it, from another terminal"),
    ] {
        eprintln!("{}", format!("  {command:<width$}  {purpose}", width = call.len()).trim_end());
    }
    eprintln!("\n{}", lang.needs());
    Ok(ExitCode::SUCCESS)
}

fn write(directory: &Path, language: Language, name: &str) -> Result<(), NewError> {
    for (file, content) in language.files(name) {
        let path = directory.join(file);
        let folder = path.parent().unwrap_or(directory);
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, content));
        written.map_err(|source| NewError::Write { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "hello", "a-1", &"a".repeat(60)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "1a", "Hello", "a_b", "a/b", "..", "é", &"a".repeat(61)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }
}
