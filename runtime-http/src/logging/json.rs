//! What the JSON form of a log line must not have: JSON itself escapes only control characters of ASCII.

use crate::excerpt::is_dangerous;

/// `line` with the characters escaped that a terminal obeys, or that change the order of what is shown; `None` if it has none. In JSON they are
/// within strings.
pub fn escaped(line: &[u8]) -> Option<Vec<u8>> {
    // Of ASCII, what was made here has none but DEL.
    if line.is_ascii() && line.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\n') {
        return None;
    }
    // The line feed ends it.
    let is_dangerous = |character: char| character != '\n' && is_dangerous(character);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_and_means_the_same() {
        assert_eq!(escaped(b"{\"stderr\":\"plain\"}"), None);
        assert_eq!(escaped("{\"stderr\":\"Grüße 🦀\"}".as_bytes()), None);
        assert_eq!(escaped("{\"stderr\":\"\u{7f}\"}\n".as_bytes()).unwrap(), b"{\"stderr\":\"\\u007f\"}\n");
        let text = "a\u{9b}31m\u{202e}b\u{2028}é\u{61c}";
        let line = serde_json::json!({ "stderr": text }).to_string();
        let escaped = String::from_utf8(escaped(line.as_bytes()).unwrap()).unwrap();
        assert_eq!(escaped, "{\"stderr\":\"a\\u009b31m\\u202eb\\u2028é\\u061c\"}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap()["stderr"], text);
    }
}
