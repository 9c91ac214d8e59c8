//! Sections that are pages of their own on the site. In the repository they stay in their document, where tests hold them against the program.

use anyhow::Context;

use crate::markdown::{self, heading};

/// A section of the second level, and the page that it becomes, in the directory of its document.
pub struct Section {
    pub document: &'static str,
    pub heading: &'static str,
    pub page: &'static str,
    pub title: &'static str,
}

pub const SECTIONS: [Section; 6] = [
    Section {
        document: "docs/operations.md",
        heading: "Configuration",
        page: "settings.md",
        title: "Settings of a box",
    },
    Section { document: "docs/operations.md", heading: "Metrics", page: "metrics.md", title: "Metrics" },
    Section {
        document: "docs/api.md",
        heading: "Per-function settings",
        page: "function-settings.md",
        title: "Settings of a function",
    },
    Section {
        document: "docs/api.md",
        heading: "Headers of an answer",
        page: "response-headers.md",
        title: "Response headers",
    },
    Section {
        document: "docs/api.md",
        heading: "WebAssembly features",
        page: "webassembly-features.md",
        title: "WebAssembly features",
    },
    Section { document: "docs/design.md", heading: "Threat model", page: "threat-model.md", title: "Threat model" },
];

/// What remains of the document, with a link in place of the section, and the page.
///
/// # Errors
/// If the document has no such section.
pub fn take(document: &str, section: &Section) -> anyhow::Result<(String, String)> {
    let (mut rest, mut page) = (String::new(), format!("# {}\n", section.title));
    let (mut inside, mut found) = (false, false);
    for (line, code) in markdown::lines(document) {
        match heading(line).filter(|_| !code) {
            Some((2, text)) if text == section.heading => {
                (inside, found) = (true, true);
                rest.push_str(&format!("{line}\nSee [{}]({}).\n\n", section.title, section.page));
                continue;
            }
            Some((1 | 2, _)) => inside = false,
            // One level up, below the page's own title.
            Some(_) if inside => page.push_str(&line[1..]),
            Some(_) | None => {}
        }
        if inside && heading(line).filter(|_| !code).is_none() {
            page.push_str(line);
        } else if !inside {
            rest.push_str(line);
        }
    }
    found.then_some((rest, page)).with_context(|| format!("{} has no section {}", section.document, section.heading))
}

/// Where a link from one document of a directory to another leads on the site, if its target has moved. `own` is whose link it is: a
/// document, or the page of a section.
pub fn moved(own: &str, target: &str, pages: &[(&Section, Vec<String>)]) -> Option<String> {
    let (file, anchor) = target.split_once('#')?;
    // Links of a page to its document, which are written without a file.
    let from = SECTIONS.iter().find(|section| section.page == own);
    let document = match (file, from) {
        ("", Some(section)) => section.document.rsplit('/').next().unwrap_or_default(),
        ("", None) => own,
        (file, _) => file,
    };
    let holds = |(section, anchors): &&(&Section, Vec<String>)| {
        section.document.ends_with(document.rsplit('/').next().unwrap_or_default())
            && (markdown::anchor(section.heading) == anchor || anchors.iter().any(|name| name == anchor))
    };
    let path = |page: &str| match document.rsplit_once('/') {
        Some((directory, _)) => format!("{directory}/{page}"),
        None => page.to_owned(),
    };
    match pages.iter().find(holds) {
        Some((section, _)) if markdown::anchor(section.heading) == anchor => Some(path(section.page)),
        Some((section, _)) => Some(format!("{}#{anchor}", path(section.page))),
        None => (from.is_some() && file.is_empty()).then(|| format!("{document}#{anchor}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        "# D\n\n## A\n\na\n\n## Metrics\n\nm [x](#a)\n\n### Alerts\n\n```sh\n## code\n```\n\n## B\n\nb\n";

    #[test]
    fn a_section_becomes_a_page() {
        let (rest, page) = take(DOCUMENT, &SECTIONS[1]).expect("it is there");
        assert_eq!(rest, "# D\n\n## A\n\na\n\n## Metrics\n\nSee [Metrics](metrics.md).\n\n## B\n\nb\n");
        assert_eq!(page, "# Metrics\n\nm [x](#a)\n\n## Alerts\n\n```sh\n## code\n```\n\n");
        assert!(take("# D\n", &SECTIONS[1]).is_err());
    }

    #[test]
    fn links_follow_their_section() {
        let pages = [(&SECTIONS[1], vec!["metrics".to_owned(), "alerts".to_owned()])];
        for (own, target, expected) in [
            ("operations.md", "#alerts", Some("metrics.md#alerts")),
            ("runbook.md", "operations.md#metrics", Some("metrics.md")),
            ("README.md", "../docs/operations.md#alerts", Some("../docs/metrics.md#alerts")),
            ("metrics.md", "#a", Some("operations.md#a")),
            ("metrics.md", "#alerts", Some("metrics.md#alerts")),
            ("operations.md", "#a", None),
            ("runbook.md", "operations.md", None),
            ("runbook.md", "api.md#alerts", None),
        ] {
            assert_eq!(moved(own, target, &pages).as_deref(), expected, "{own}: {target}");
        }
    }
}
