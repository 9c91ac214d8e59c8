//! What the JSON form of a log line must not have: JSON itself escapes only control characters of ASCII.

/// `line` with the characters escaped that a terminal obeys, or that change the order of what is shown; `None` if it has none. In JSON they are
/// within strings.
pub fn escaped(line: &[u8]) -> Option<Vec<u8>> {
    if line.is_ascii() {
        return None;
    }
    let text = std::str::from_utf8(line).ok().filter(|text| text.contains(is_dangerous))?;
    let mut escaped = String::with_capacity(line.len() + 16);
    for character in text.chars() {
        if is_dangerous(character) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    Some(escaped.into_bytes())
}

/// C1 controls, separators of lines and paragraphs, and marks of direction (Unicode, UAX 9).
fn is_dangerous(character: char) -> bool {
    matches!(character,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_means_the_same() {
        assert_eq!(escaped(b"{\"stderr\":\"plain\"}"), None);
        assert_eq!(escaped("{\"stderr\":\"Grüße 🦀\"}".as_bytes()), None);
        let text = "a\u{9b}31m\u{202e}b\u{2028}é";
        let line = serde_json::json!({ "stderr": text }).to_string();
        let escaped = String::from_utf8(escaped(line.as_bytes()).unwrap()).unwrap();
        assert_eq!(escaped, "{\"stderr\":\"a\\u009b31m\\u202eb\\u2028é\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap()["stderr"], text);
    }
}
