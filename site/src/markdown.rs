//! What the site has to know of a Markdown document: its headings, its anchors and its links. Fenced code has none of them.

/// A line, and whether it is within fenced code, the fences included.
pub fn lines(document: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut fenced = false;
    document.split_inclusive('\n').map(move |line| {
        let fence = line.trim_start().starts_with("```");
        let code = fenced || fence;
        fenced ^= fence;
        (line, code)
    })
}

/// The level and the text of a heading.
pub fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line.bytes().take_while(|&byte| byte == b'#').count();
    let text = line[level..].strip_prefix(' ')?;
    (1..=6).contains(&level).then(|| (level, text.trim()))
}

/// The anchor of a heading, as GitHub and mdBook make it.
pub fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|char| char.is_alphanumeric() || ['-', '_', ' '].contains(char));
    kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() }).collect()
}

/// The anchors of all headings, and of `<a id="...">`.
pub fn anchors(document: &str) -> Vec<String> {
    let text = || lines(document).filter(|(_, code)| !code).map(|(line, _)| line);
    let headings = text().filter_map(heading).map(|(_, text)| anchor(text));
    let named =
        text().filter_map(|line| line.split_once("<a id=\"")?.1.split_once('"')).map(|(name, _)| name.to_owned());
    headings.chain(named).collect()
}

/// The document with each link's target replaced by what `replace` makes of it, as far as it makes something.
pub fn replace_links(document: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    let mut replaced = String::with_capacity(document.len());
    for (line, code) in lines(document) {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once("](").filter(|_| !code) {
            let Some((target, after)) = after.split_once(')') else { break };
            replaced.push_str(before);
            replaced.push_str("](");
            replaced.push_str(replace(target).as_deref().unwrap_or(target));
            replaced.push(')');
            rest = after;
        }
        replaced.push_str(rest);
    }
    replaced
}

/// The targets of all links.
pub fn links(document: &str) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    replace_links(document, |target| {
        found.borrow_mut().push(target.to_owned());
        None
    });
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# One\n\n[a](b.md) and [c](d.md#e)\n\n```sh\n# no heading\n[no](link)\n```\n\n## `Two` of 3, or_so\n<a id=\"three\"></a>\n";

    #[test]
    fn code_has_no_headings_and_no_links() {
        assert_eq!(anchors(DOCUMENT), ["one", "two-of-3-or_so", "three"]);
        assert_eq!(links(DOCUMENT), ["b.md", "d.md#e"]);
    }

    #[test]
    fn links_are_replaced_and_nothing_else() {
        let replaced = replace_links(DOCUMENT, |target| (target == "b.md").then(|| "new.md".to_owned()));
        assert_eq!(replaced, DOCUMENT.replace("b.md", "new.md"));
        assert_eq!(replace_links(DOCUMENT, |_| None), DOCUMENT);
    }
}
