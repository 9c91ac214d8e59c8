//! `wasmbox logs`: the last lines of one function's log, and those that come.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use http::Request;

use super::remote::{Remote, RemoteArgs, RemoteError};
use crate::{excerpt::escaped, function_log::line::Shown, logging::json, upload::routes::function_name};

#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The function
    pub name: String,
    /// Go on with what comes, until the box ends
    #[arg(short, long)]
    pub follow: bool,
    /// Print the box's lines as they are, JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// The longest line of a box, escaped as JSON; what is longer is not one of a box.
const LONGEST: usize = 128 << 10;

/// # Errors
/// [`RemoteError`]
pub fn logs(arguments: &LogsArgs) -> Result<ExitCode, RemoteError> {
    let remote = Remote::new(&arguments.remote)?;
    let name = function_name(&arguments.name).map_err(|_| RemoteError::Name { text: arguments.name.clone() })?;
    let query = if arguments.follow { "?follow" } else { "" };
    let mut unended = Vec::new();
    let result = remote.stream(Request::get(format!("/functions/{name}/logs{query}")), |bytes| {
        unended.extend_from_slice(bytes);
        let Some(end) = unended.iter().rposition(|byte| *byte == b'\n') else {
            return if unended.len() > LONGEST { Err(remote.no_box("a line without an end")) } else { Ok(()) };
        };
        let whole: Vec<u8> = unended.drain(..=end).collect();
        print(&remote, &whole, arguments.json)
    });
    let last = match &result {
        // Also of an answer that was broken off.
        Ok(()) | Err(RemoteError::NoAnswer { .. }) => print(&remote, &unended, arguments.json),
        Err(_) => Ok(()),
    };
    match result.and(last) {
        // Whoever reads this has enough.
        Err(RemoteError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

fn print(remote: &Remote, lines: &[u8], json: bool) -> Result<(), RemoteError> {
    let text = text(lines, json).map_err(|error| remote.no_box(&error.to_string()))?;
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(RemoteError::Output)
}

/// What is shown of lines of a box, of which the last one may have no end.
fn text(lines: &[u8], json: bool) -> serde_json::Result<String> {
    let mut text = String::new();
    for line in String::from_utf8_lossy(lines).lines().filter(|line| !line.is_empty()) {
        if json {
            let escaped = json::escaped(line.as_bytes()).map_or(Cow::Borrowed(line.as_bytes()), Cow::Owned);
            text.push_str(&String::from_utf8_lossy(&escaped));
            text.push('\n');
        } else {
            text.push_str(&readable(&serde_json::from_str(line)?));
        }
    }
    Ok(text)
}

/// `TIME ID TEXT`. Nothing in it is for the terminal to obey: a function chose the text, and who answers need not be a box.
fn readable(line: &Shown<'_>) -> String {
    if let Some(missed) = line.missed {
        return format!("... {missed} lines are gone\n");
    }
    let mut text = String::new();
    let _ = write!(text, "{} {} ", time(line.unix_ms.unwrap_or(0)), escaped(line.id.as_deref().unwrap_or("?")));
    if let Some(stderr) = &line.stderr {
        text.push_str(&escaped(stderr));
    }
    if let Some(log) = &line.log {
        let severity = line.severity.as_deref().unwrap_or("?");
        let context = line.context.as_deref().map_or_else(String::new, |context| format!(" {context}"));
        let _ = write!(text, "[{}] {}", escaped(&format!("{severity}{context}")), escaped(log));
    }
    text.push_str(&line.not_logged().unwrap_or_default());
    if let Some(failure) = &line.failure {
        let (status, code) = (line.status.unwrap_or(0), line.code.as_deref().unwrap_or(""));
        let code = if code.is_empty() { String::new() } else { format!(" {code}") };
        let _ = write!(text, "failed ({status}{}): {}", escaped(&code), escaped(failure));
    }
    text.push('\n');
    text
}

/// `HH:MM:SS.mmm`, UTC.
fn time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, unix_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_people() {
        let shown = |line: &str| readable(&serde_json::from_str(line).unwrap());
        assert_eq!(
            shown(r#"{"unix_ms":3723004,"id":"07","stderr":"to \u001b[2J be\u202e"}"#),
            "01:02:03.004 07 to \\u{1b}[2J be\\u{202e}\n"
        );
        assert_eq!(
            shown(r#"{"unix_ms":0,"id":"07","severity":"warn","context":"shop","log":"a\nb"}"#),
            "00:00:00.000 07 [warn shop] a\\nb\n"
        );
        assert_eq!(
            shown(r#"{"unix_ms":0,"id":"07","status":500,"code":"guest-trap","failure":"it trapped"}"#),
            "00:00:00.000 07 failed (500 guest-trap): it trapped\n"
        );
        assert_eq!(shown(r#"{"missed":7}"#), "... 7 lines are gone\n");
        assert_eq!(shown(r#"{"unix_ms":0,"id":"07","stderr":"a\nb\\nc"}"#), "00:00:00.000 07 a\\nb\\\\nc\n");
    }

    #[test]
    fn the_last_line_needs_no_end() {
        let both = "{\"missed\":1}\n\n{\"missed\":2}";
        assert_eq!(text(both.as_bytes(), false).unwrap(), "... 1 lines are gone\n... 2 lines are gone\n");
        assert_eq!(text(both.as_bytes(), true).unwrap(), "{\"missed\":1}\n{\"missed\":2}\n");
        assert!(text(b"{\"missed\":", false).is_err());
    }

    #[test]
    fn json_stays_json() {
        let line = "{\"stderr\":\"a\\n\\\\n\u{1b}\u{9b}\"}";
        assert_eq!(text(line.as_bytes(), true).unwrap(), "{\"stderr\":\"a\\n\\\\n\\u001b\\u009b\"}\n");
    }
}
