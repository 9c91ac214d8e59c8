//! The site as it was built: each link leads to a file, and to an anchor in it; nothing is loaded from another host, so that it can be read
//! without a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

use crate::html::{self, Tag};

pub struct CheckReport {
    pub pages: usize,
    pub links: usize,
    pub faults: Vec<String>,
}

/// Looks at all files of the site.
///
/// # Errors
/// If one cannot be read, or there is no page.
pub fn site(directory: &Path) -> anyhow::Result<CheckReport> {
    let directory = directory.canonicalize().with_context(|| directory.display().to_string())?;
    let mut files = Vec::new();
    list(&directory, &mut files)?;
    let mut pages = BTreeMap::new();
    let mut faults = Vec::new();
    for file in files {
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // What a document linked to may be of any kind, and is not part of a page.
        let is_asset = ["css", "js"].contains(&ending);
        if ending == "html" || is_asset {
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            faults.extend(loads(&text).map(|host| format!("{}: loads {host}", file.display())));
            if !is_asset {
                pages.insert(file, text);
            }
        }
    }
    ensure!(!pages.is_empty(), "{} has no pages", directory.display());
    let anchors: BTreeMap<&PathBuf, BTreeSet<String>> =
        pages.iter().map(|(file, text)| (file, anchors(text))).collect();
    let mut links = 0;
    for (file, text) in &pages {
        for tag in html::tags(text) {
            // mdBook's script asks play.rust-lang.org where there is one.
            if tag.attribute("class").is_some_and(|class| class.split(' ').any(|name| name == "playground")) {
                faults.push(format!("{}: has a playground, which asks another host", file.display()));
            }
            let Some(target) = tag.attribute("href").or_else(|| tag.attribute("src")) else { continue };
            links += 1;
            if let Some(fault) = fault(&tag, &target, file, &directory, &anchors) {
                faults.push(format!("{}: {target}: {fault}", file.display()));
            }
        }
    }
    Ok(CheckReport { pages: pages.len(), links, faults })
}

fn anchors(page: &str) -> BTreeSet<String> {
    html::tags(page).iter().filter_map(|tag| tag.attribute("id")).collect()
}

/// What is wrong with a link.
fn fault(
    tag: &Tag<'_>,
    target: &str,
    page: &Path,
    site: &Path,
    anchors: &BTreeMap<&PathBuf, BTreeSet<String>>,
) -> Option<String> {
    if target.starts_with("//") || target.contains("://") {
        // A reader may follow a link to another host; a page may not load anything from there.
        return match (tag.name, target.starts_with("https://")) {
            ("a", true) => None,
            ("a", false) => Some("links to other hosts begin with https://".into()),
            _ => Some("is loaded from another host".into()),
        };
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = match path {
        "" => page.to_owned(),
        path => page.parent().unwrap_or(site).join(path),
    };
    let Ok(mut file) = file.canonicalize() else { return Some("there is no such file".into()) };
    if file.is_dir() {
        file.push("index.html");
    }
    if !file.starts_with(site) || !file.is_file() {
        return Some("there is no such file on the site".into());
    }
    let known = anchor.is_empty() || anchors.get(&file).is_some_and(|names| names.contains(anchor));
    (!known).then(|| format!("{} has no anchor {anchor}", file.display()))
}

/// Addresses of other hosts that style sheets, or scripts, load something from.
fn loads(text: &str) -> impl Iterator<Item = &str> {
    const BEFORE: [&str; 6] = ["url(", "@import ", "importScripts(", "fetch(", "import(", ".src="];
    let starts =
        BEFORE.into_iter().flat_map(move |before| text.match_indices(before).map(move |(at, _)| at + before.len()));
    starts.filter_map(move |start| {
        let rest = text[start..].trim_start_matches([' ', '"', '\'', '`']);
        let is_foreign = ["http://", "https://", "//"].iter().any(|scheme| rest.starts_with(scheme));
        is_foreign.then(|| rest.split(['"', '\'', ')', '`', '\n']).next().unwrap_or_default())
    })
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn broken_links_and_other_hosts_are_found() {
        let directory = env::temp_dir().join(format!("wasmbox-site-{}", process::id()));
        fs::create_dir_all(directory.join("b")).expect("a new directory");
        let put = |name: &str, text: &str| fs::write(directory.join(name), text).expect("a new file");
        put(
            "a.html",
            "<h1 id=\"one\"></h1><a href=\"b/c.html#two\"></a><a href=\"#one\"></a><a href=\"https://example.com/\"></a>",
        );
        put("b/c.html", "<h2 id=\"two\"></h2><a href=\"../a.html\"></a><link href=\"../s.css\">");
        put("s.css", "a { background: url(\"data:image/png;base64,AA\") } b { background: url(x.png) }");
        let good = site(&directory).expect("pages");
        assert_eq!((good.pages, good.links, good.faults), (2, 5, vec![]));
        for (bad, fault) in [
            ("<a href=\"b/d.html\"></a>", "no such file"),
            ("<a href=\"b/c.html#three\"></a>", "no anchor three"),
            ("<a href=\"#three\"></a>", "no anchor three"),
            ("<a href=\"../../../etc/passwd\"></a>", "no such file"),
            ("<a href=\"http://example.com/\"></a>", "https://"),
            ("<img src=\"https://example.com/x.png\">", "another host"),
            ("<link href=\"//example.com/x.css\">", "another host"),
            ("<pre class=\"a playground\"></pre>", "a playground"),
            ("<style>@import 'https://example.com/x.css';</style>", "loads https://example.com/x.css"),
            ("<script>fetch(\"https://example.com/x\")</script>", "loads https://example.com/x"),
        ] {
            put("bad.html", bad);
            let faults = site(&directory).expect("pages").faults;
            assert!(faults.iter().any(|text| text.contains(fault)), "{bad}: {faults:?}");
        }
        fs::remove_dir_all(&directory).expect("the directory is ours");
    }
}
