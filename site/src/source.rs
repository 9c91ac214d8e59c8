//! The book from which mdBook makes the site: the repository's documents at their own paths, so that links between them hold, and the
//! files that they link to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::{
    command_line, markdown,
    section::{self, SECTIONS, Section},
};

/// The page that is made from the program's help.
const COMMAND_LINE: &str = "docs/command-line.md";

/// Makes the directory anew.
///
/// # Errors
/// If a document of `SUMMARY.md` is missing or a file cannot be read or written.
pub fn prepare(repository: &Path, wasmbox: &Path, book: &Path) -> anyhow::Result<()> {
    if book.exists() {
        fs::remove_dir_all(book).with_context(|| book.display().to_string())?;
    }
    let directory = book.join("src");
    let summary = read(&repository.join("site/SUMMARY.md"))?;
    let sections: Vec<(PathBuf, &Section)> =
        SECTIONS.iter().map(|section| (Path::new(section.document).with_file_name(section.page), section)).collect();
    let mut pages = BTreeMap::new();
    for page in markdown::links(&summary).into_iter().map(PathBuf::from) {
        let made = page == Path::new(COMMAND_LINE) || sections.iter().any(|(path, _)| *path == page);
        if !made {
            let document = read(&repository.join(&page))?;
            pages.insert(page, document);
        }
    }
    let mut moved = Vec::new();
    for (path, section) in &sections {
        let document = pages.get_mut(Path::new(section.document)).with_context(|| section.document)?;
        let (rest, page) = section::take(document, section)?;
        *document = rest;
        moved.push((*section, markdown::anchors(&page)));
        pages.insert(path.clone(), page);
    }
    for (path, page) in &mut pages {
        let own = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        *page = markdown::replace_links(page, |target| section::moved(own, target, &moved));
    }
    pages.insert(COMMAND_LINE.into(), command_line::page(wasmbox)?);
    for (path, page) in &pages {
        for target in markdown::links(page) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains(':') {
                continue;
            }
            let linked = normal(&path.parent().unwrap_or(Path::new("")).join(target));
            let linked = linked.with_context(|| format!("{}: {target} leads out of the repository", path.display()))?;
            let file = repository.join(&linked);
            if !pages.contains_key(&linked) && file.is_file() {
                write(&directory.join(&linked), &fs::read(&file).with_context(|| file.display().to_string())?)?;
            }
        }
        write(&directory.join(path), markdown::replace_links(page, index).as_bytes())?;
    }
    write(&directory.join("SUMMARY.md"), summary.as_bytes())?;
    write(&book.join("book.toml"), read(&repository.join("site/book.toml"))?.as_bytes())
}

/// mdBook makes `index.html` of a `README.md`, and leaves links to it as they are.
fn index(target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let directory = path.strip_suffix("README.md").filter(|path| !path.contains(':'))?;
    Some(anchor.map_or_else(|| format!("{directory}index.md"), |anchor| format!("{directory}index.md#{anchor}")))
}

/// The path without `.` and `..`; none if it leads out.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir => normal.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text)
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let directory = path.parent().with_context(|| path.display().to_string())?;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::write(path, content).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_readmes_lead_to_indexes() {
        assert_eq!(index("../benches/README.md#density").as_deref(), Some("../benches/index.md#density"));
        assert_eq!(index("README.md").as_deref(), Some("index.md"));
        assert_eq!(index("api.md"), None);
        assert_eq!(index("https://example.com/README.md"), None);
    }

    #[test]
    fn paths_stay_in_the_repository() {
        let normal = |path: &str| normal(Path::new(path)).map(|path| path.display().to_string());
        assert_eq!(normal("docs/../benches/./README.md").as_deref(), Some("benches/README.md"));
        assert_eq!(normal("docs/../../secret"), None);
        assert_eq!(normal("/etc/passwd"), None);
    }
}
