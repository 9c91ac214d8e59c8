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

struct Excerpt(String);

impl Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= LONGEST {
                self.0.push('…');
                return Err(fmt::Error);
            }
            if character != '\n' && is_harmful(character) {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// Control characters, line separators, and what reorders text (Unicode Standard Annex 9, "explicit directional").
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    fn nobody_else_moves_the_cursor() {
        assert_eq!(excerpt("a\x1b[2Jb\r\nc\u{9b}d\u{202e}e"), "a\\u{1b}[2Jb\\r\nc\\u{9b}d\\u{202e}e");
    }
}
