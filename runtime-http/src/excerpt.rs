//! Excerpts of texts that somebody else chose the length and the characters of: what answers and log lines quote of modules and settings.

use std::fmt::{self, Display, Write};

/// The most bytes of an excerpt, about: enough for each message of a compiler, too little to flood a log with.
const LONGEST: usize = 1 << 10;

/// `text` in at most about 1 KiB. Control characters but line feeds are escaped, and so are those that change the direction of what follows.
///
/// It is shortened while it is formatted, so a text of any length costs no more than its beginning.
pub fn excerpt(text: impl Display) -> String {
    let mut excerpt = Excerpt(String::new());
    // An error says that the rest was left out.
    let _ = write!(excerpt, "{text}");
    excerpt.0
}

/// The end of `text`, as [`excerpt`] shows its beginning.
pub fn excerpt_of_end(text: &str) -> String {
    let mut end = Vec::new();
    let mut length = 0;
    for character in text.chars().rev() {
        let shown = shown(character);
        length += shown.len();
        if length > LONGEST {
            end.push("…".to_owned());
            break;
        }
        end.push(shown);
    }
    end.reverse();
    end.concat()
}

/// All of `text`, in one line. Its own backslashes are escaped, too, so none of them looks like an escape.
pub fn escaped(text: &str) -> String {
    let escaped = |character: char| match character {
        '\n' | '\\' => character.escape_default().collect(),
        _ => shown(character),
    };
    text.chars().map(escaped).collect()
}

fn shown(character: char) -> String {
    if character != '\n' && is_dangerous(character) { character.escape_default().collect() } else { character.into() }
}

struct Excerpt(String);

impl Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= LONGEST {
                self.0.push('…');
                return Err(fmt::Error);
            }
            if character != '\n' && is_dangerous(character) {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// Control characters, separators of lines and paragraphs, and marks of direction (Unicode Standard Annex 9, 2.7): what a terminal obeys, or what
/// changes the order of what is shown.
pub fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(excerpt("short"), "short");
        let long = excerpt("é".repeat(100_000));
        assert!(long.ends_with("é…") && long.len() < LONGEST + 8, "{} bytes", long.len());
        // Over several pieces, too.
        let pieces = excerpt(format_args!("{} {} {}", "a".repeat(1000), "b".repeat(1000), "c"));
        assert!(pieces.ends_with("b…") && pieces.len() < LONGEST + 8, "{pieces}");
    }

    #[test]
    fn the_end_of_a_text_is_its_last_words() {
        assert_eq!(excerpt_of_end("a\x1b[2Jb\r\nc"), "a\\u{1b}[2Jb\\r\nc");
        let long = excerpt_of_end(&("\x1b".repeat(10_000) + "é the end"));
        assert!(long.starts_with("…\\u{1b}") && long.ends_with("é the end") && long.len() <= LONGEST + 3, "{long}");
    }

    #[test]
    fn no_text_looks_like_what_is_escaped() {
        assert_eq!(escaped("a\nb\\nc\u{61c}d\\u{61c}e"), r"a\nb\\nc\u{61c}d\\u{61c}e");
        assert_eq!(excerpt("a\u{61c}"), r"a\u{61c}");
        assert!(
            ['\u{7f}', '\u{9b}', '\u{61c}', '\u{200f}', '\u{2028}', '\u{202e}', '\u{2069}']
                .iter()
                .all(|it| is_dangerous(*it))
        );
        assert!(!"aé🦀\u{200d} ~".contains(is_dangerous));
    }

    #[test]
    fn nobody_else_moves_the_cursor() {
        assert_eq!(excerpt("a\x1b[2Jb\r\nc\u{9b}d\u{202e}e"), "a\\u{1b}[2Jb\\r\nc\\u{9b}d\\u{202e}e");
    }
}
