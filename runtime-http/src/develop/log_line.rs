//! A line of a box's log (`--log-format=json`), and what of it a developer wants to see.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    palette::Palette,
    summary::{memory, milliseconds},
};

#[derive(Debug, Deserialize)]
pub struct LogLine {
    pub level: String,
    pub target: String,
    #[serde(default)]
    pub message: String,
    /// What else there is, but for the time.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// What an invocation took, as the log has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Call {
    pub id: String,
    pub function: String,
    pub status: u16,
    /// Empty for an answer of the function.
    pub code: String,
    pub queue_us: u64,
    pub compile_us: u64,
    pub exec_us: u64,
    pub cpu_us: u64,
    pub throttled_us: u64,
    pub memory_bytes: u64,
    #[serde(default)]
    pub failure: Option<String>,
}

impl LogLine {
    /// `None`: it is not a line of the log.
    pub fn parse(line: &str) -> Option<LogLine> {
        serde_json::from_str(line).ok()
    }

    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// If it is about an invocation that had begun.
    pub fn call(&self) -> Option<Call> {
        let is_call = self.target == "invocation" && self.fields.contains_key("function");
        is_call.then(|| serde_json::from_value(Value::Object(self.fields.clone())).ok()).flatten()
    }

    /// If it is about what the function wrote to standard error, or gave to the log: the invocation, and the text.
    pub fn stderr(&self) -> Option<(&str, &str)> {
        let field = ["stderr", "log"].into_iter().find(|field| self.fields.contains_key(*field))?;
        (self.target == "guest").then(|| (self.text("id"), self.text(field)))
    }

    /// The level and the context that a function gave with a line for the log, if it is one.
    fn origin(&self) -> String {
        let words = ["severity", "context"].map(|field| self.text(field));
        words.iter().filter(|word| !word.is_empty()).map(|word| format!("{word}: ")).collect()
    }

    /// For a developer: lines of calls, of functions, and of what is wrong.
    pub fn shown(&self, palette: Palette) -> Option<String> {
        if let Some(call) = self.call() {
            return Some(call.shown(palette));
        }
        if let Some((_, text)) = self.stderr() {
            return Some(format!(
                "{} {}",
                palette.faint(format_args!("{} |", self.text("function"))),
                palette.guest(plain(&format!("{}{text}", self.origin())))
            ));
        }
        if self.target == "invocation" {
            let status = self.fields.get("status").and_then(Value::as_u64).and_then(|status| status.try_into().ok());
            let status = status.unwrap_or_default();
            let code = palette.status(status, format_args!("{status} {}", self.text("code")));
            return Some(format!("{code}  {}", plain(self.text("failure"))));
        }
        // That a function cannot be loaded is told by the line of the call that wanted it.
        if !["WARN", "ERROR"].contains(&&*self.level) || self.target == "wasmbox::store" {
            return None;
        }
        let mut text = plain(&self.message);
        for (name, value) in self.fields.iter().filter(|(name, _)| *name != "timestamp") {
            // Writing to a string does not fail.
            let _ = write!(text, "; {name}: {}", plain(&value.to_string()));
        }
        Some(if self.level == "WARN" { palette.doubtful(text) } else { palette.bad(text) })
    }
}

impl Call {
    fn shown(&self, palette: Palette) -> String {
        let status = match &*self.code {
            "" => self.status.to_string(),
            code => format!("{} {code}", self.status),
        };
        let mut text = format!(
            "{}  {}  {}  cpu {}  memory {}",
            palette.strong(&self.function),
            palette.status(self.status, status),
            milliseconds(self.queue_us + self.compile_us + self.exec_us),
            milliseconds(self.cpu_us),
            memory(self.memory_bytes),
        );
        if let Some(failure) = &self.failure {
            text = format!("{text}\n  {}", palette.bad(plain(failure)));
        }
        text
    }
}

/// What others wrote, for a terminal, which must not be told anything by it.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !['\n', '\t'].contains(&character) {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<String> {
        let palette = Palette::new(clap::ColorChoice::Never, &std::io::stderr());
        LogLine::parse(line).expect("a line").shown(palette)
    }

    #[test]
    fn lines_for_a_developer() {
        for (line, text) in [
            (
                r#"{"timestamp":"t","level":"INFO","id":"07","function":"hello","status":200,"code":"","queue_us":1,"compile_us":1651,"exec_us":360,"cpu_us":349,"throttled_us":0,"memory_bytes":65536,"target":"invocation"}"#,
                Some("hello  200  2.0 ms  cpu 0.3 ms  memory 64.0 KiB"),
            ),
            (
                r#"{"timestamp":"t","level":"INFO","id":"07","function":"f","status":500,"code":"guest-trap","queue_us":0,"compile_us":0,"exec_us":0,"cpu_us":0,"throttled_us":0,"memory_bytes":0,"failure":"it\u001b[2J trapped","target":"invocation"}"#,
                Some("f  500 guest-trap  0.0 ms  cpu 0.0 ms  memory 0 B\n  it\\u{1b}[2J trapped"),
            ),
            (
                r#"{"timestamp":"t","level":"INFO","status":404,"code":"module-not-found","failure":"no function \"nope\"","target":"invocation"}"#,
                Some("404 module-not-found  no function \"nope\""),
            ),
            (
                r#"{"timestamp":"t","level":"INFO","function":"f","id":"07","stderr":"a\tb\rc","target":"guest"}"#,
                Some("f | a\tb\\rc"),
            ),
            (
                r#"{"timestamp":"t","level":"WARN","message":"stderr was not logged","function":"f","dropped_bytes":7,"target":"guest"}"#,
                Some("stderr was not logged; dropped_bytes: 7; function: \"f\""),
            ),
            (
                r#"{"timestamp":"t","level":"WARN","function":"f","id":"07","severity":"warn","context":"shop","log":"sold out","target":"guest"}"#,
                Some("f | warn: shop: sold out"),
            ),
            (r#"{"timestamp":"t","level":"INFO","message":"serving, with AOT cache","target":"wasmbox::serve"}"#, None),
        ] {
            assert_eq!(shown(line).as_deref(), text, "{line}");
        }
        assert!(LogLine::parse("wasmbox: no").is_none());
    }
}
