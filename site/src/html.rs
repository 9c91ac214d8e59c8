//! Tags of HTML as mdBook writes it: names, and attributes in double quotes.

/// A start tag.
#[derive(Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    pub name: &'a str,
    attributes: &'a str,
}

impl<'a> Tag<'a> {
    /// The value of an attribute, with the references of HTML replaced that links have.
    pub fn attribute(&self, name: &str) -> Option<String> {
        let mut rest = self.attributes;
        while let Some((before, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            if before.rsplit(|char: char| char.is_ascii_whitespace()).next() == Some(name) {
                return Some(value.replace("&amp;", "&").replace("&#x2F;", "/"));
            }
            rest = after;
        }
        None
    }
}

/// All start tags, without those in comments and scripts.
pub fn tags(page: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(comment) = after.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, after)| after);
            continue;
        }
        let Some((tag, after)) = after.split_once('>') else { break };
        rest = after;
        if tag.starts_with(|char: char| char.is_ascii_alphabetic()) {
            let (name, attributes) = tag.split_once(|char: char| char.is_ascii_whitespace()).unwrap_or((tag, ""));
            if name == "script" {
                rest = rest.split_once("</script>").map_or("", |(_, after)| after);
            }
            tags.push(Tag { name, attributes });
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_attributes() {
        let page = "<!-- <a href=\"x\"> --><a class=\"c\" href=\"a.html?b=1&amp;c\">t</a><script src=\"s.js\">'<img src=\"no\">'</script><br>";
        let tags = tags(page);
        assert_eq!(tags.iter().map(|tag| tag.name).collect::<Vec<_>>(), ["a", "script", "br"]);
        assert_eq!(tags[0].attribute("href").as_deref(), Some("a.html?b=1&c"));
        assert_eq!(tags[0].attribute("id"), None);
        assert_eq!(tags[1].attribute("src").as_deref(), Some("s.js"));
    }
}
