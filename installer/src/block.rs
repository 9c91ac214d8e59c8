//! A block of ours in somebody else's text, between two marks. Taken out, the text is what it was, to the byte.

use std::ops::Range;

const BEGIN: &str = "# BEGIN wasmbox";
/// After the first mark, if the file was not there before.
const MADE: &str = " (the file is wasmbox-installer's, too)";
const NOTE: &str = "; written by wasmbox-installer, removed by its `uninstall`\n";
const END: &str = "# END wasmbox\n";

/// A text without our block, and whether it was there because of it alone.
#[derive(Debug, PartialEq, Eq)]
pub struct Without {
    pub text: String,
    /// The file is to go, too.
    pub made: bool,
}

/// With our block at the end; `text` is what was in the file, if there was one.
pub fn add(text: Option<&str>, block: &str) -> String {
    // The line break belongs to the block: a text that does not end with one is no special case.
    let made = if text.is_none() { MADE } else { "" };
    format!("{}\n{BEGIN}{made}{NOTE}{block}{END}", text.unwrap_or_default())
}

/// The block, with its marks. None, if there is none.
pub fn find(text: &str) -> Option<&str> {
    range(text).map(|range| &text[range])
}

fn range(text: &str) -> Option<Range<usize>> {
    let begin = text.find(&format!("\n{BEGIN}"))?;
    Some(begin..begin + text[begin..].find(END)? + END.len())
}

/// None, if there is no block in it.
pub fn remove(text: &str) -> Option<Without> {
    let Range { start: begin, end } = range(text)?;
    let made = text[begin + 1 + BEGIN.len()..].starts_with(MADE);
    let text = [&text[..begin], &text[end..]].concat();
    Some(Without { made: made && text.is_empty(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_goes_without_a_trace() {
        for text in ["", "version = 2\n", "no line break at the end", "\n\n", "a = 1\r\n# BEGIN something else\n"] {
            let with = add(Some(text), "[x]\ny = 1\n");
            assert!(find(&with).unwrap().contains("[x]\ny = 1\n"));
            assert_eq!(find(text), None);
            assert_eq!(remove(&with).unwrap(), Without { text: text.into(), made: false });
            assert_eq!(remove(text), None);
        }
    }

    #[test]
    fn what_others_wrote_around_it_stays() {
        let with = add(Some("a = 1\n"), "[x]\n");
        let edited = with.replace("a = 1", "a = 2") + "[z]\n";
        assert_eq!(remove(&edited).unwrap().text, "a = 2\n[z]\n");
    }

    #[test]
    fn a_file_of_ours_goes_unless_somebody_added_to_it() {
        let with = add(None, "[x]\n");
        assert!(remove(&with).unwrap().made);
        let without = remove(&(with + "[z]\n")).unwrap();
        assert_eq!(without, Without { text: "[z]\n".into(), made: false });
    }
}
