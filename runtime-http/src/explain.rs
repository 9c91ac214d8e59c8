//! `wasmbox explain`: what docs/errors.md says about a code, and the list of codes.

use std::{
    ffi::OsStr,
    io::{self, Write},
    process::ExitCode,
};

use clap::{
    Arg, Command, ValueEnum,
    builder::{EnumValueParser, PossibleValue, TypedValueParser},
};

use crate::code::{Code, TYPE};

/// A symlink to the document, so that it belongs to this package.
const ERRORS: &str = include_str!("../errors.md");

/// The document's sections: each heading, which is a code, with the text below it.
pub fn sections() -> impl Iterator<Item = (&'static str, &'static str)> {
    ERRORS.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'))
}

/// Prints the section on `code`, or without one the codes, a line each.
///
/// # Errors
/// If the output cannot be written.
pub fn explain(code: Option<Code>) -> io::Result<ExitCode> {
    let text = match code {
        Some(code) => sections().filter(|(heading, _)| *heading == code.as_str()).map(section).collect(),
        None => Code::value_variants().iter().map(line).collect::<String>(),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that leaves, as `head` does, is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// For a terminal: labels need no asterisks there.
fn section((heading, text): (&str, &str)) -> String {
    format!("{heading}\n\n{}\n", text.trim().replace("**", ""))
}

fn line(code: &Code) -> String {
    format!("{} {:<26}  {}\n", code.status().as_u16(), code.as_str(), code.title())
}

/// Reads a code, or the `type` of an answer, which ends with one.
#[derive(Debug, Clone, Copy)]
pub struct CodeParser;

impl TypedValueParser for CodeParser {
    type Value = Code;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<Code, clap::Error> {
        let code = value.to_str().and_then(|text| text.strip_prefix(TYPE)).map_or(value, OsStr::new);
        EnumValueParser::<Code>::new().parse_ref(command, argument, code)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let value = |code: &Code| PossibleValue::new(code.as_str()).help(code.title());
        Some(Box::new(Code::value_variants().iter().map(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_by_their_names() {
        let read = |text: &str| CodeParser.parse_ref(&Command::new("explain"), None, OsStr::new(text)).ok();
        for code in Code::value_variants() {
            assert_eq!(read(code.as_str()), Some(*code));
            assert_eq!(read(&format!("{TYPE}{}", code.as_str())), Some(*code));
        }
        assert_eq!(read("guest-exot"), None);
    }
}
