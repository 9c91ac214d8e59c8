//! A box in a terminal: `wasmbox top`, and `wasmbox status --watch`. Both show what `/overview.json` says.
//!
//! What is shown comes from guests, from functions' names, and from whatever answers at the address: [`plain`] lets no character of it do anything
//! to the terminal.
//!
//! - [`arguments`]: of those who look at a box; [`status`], [`top`]: the commands, and what they print
//! - [`ask`]: asking a box; [`session`]: asking again and again, and keys; [`screen`]: what is drawn; [`status_screen`]: `/status` for people

pub mod arguments;
pub mod ask;
pub mod screen;
pub mod session;
pub mod status;
pub mod status_screen;
pub mod top;

use crate::excerpt::excerpt;

/// `text` in one line, without characters that would move the cursor or reorder what follows.
pub fn plain(text: &str) -> String {
    excerpt(text).replace('\n', " ")
}

/// The lines of `text`, each as [`plain`] has it.
pub fn plain_lines(text: &str) -> Vec<String> {
    excerpt(text).lines().map(str::to_owned).collect()
}

/// How much of a limit is used, in percent.
pub fn share(used: f64, limit: Option<f64>) -> String {
    limit.filter(|limit| *limit > 0.0).map_or_else(|| "-".into(), |limit| format!("{:.0}", used / limit * 100.0))
}

/// A rate, with about three digits.
pub fn rate(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// The bound of a time.
pub fn bound(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".into(),
        // What took longer than all classes has a day as its bound.
        Some(seconds) if seconds >= 86_400.0 => ">60 s".into(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(plain("a\x1b]0;title\x07\nb\u{9b}2J\u{202e}c"), "a\\u{1b}]0;title\\u{7} b\\u{9b}2J\\u{202e}c");
        assert_eq!(plain_lines("one\r\ntwo\x08"), ["one\\r", "two\\u{8}"]);
    }

    #[test]
    fn numbers_have_about_three_digits() {
        assert_eq!([0.0, 0.123, 12.34, 1234.5].map(rate), ["0.00", "0.12", "12.3", "1234"]);
        assert_eq!([Some(0.5), Some(0.0), None].map(|limit| share(0.125, limit)), ["25", "-", "-"]);
        assert_eq!([None, Some(0.00025), Some(0.25), Some(2.5)].map(bound), ["-", "250 us", "250 ms", "2 s"]);
    }
}
