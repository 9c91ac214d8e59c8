//! Colours, where there is somebody to see them.

use std::{env, fmt::Display, io::IsTerminal};

use clap::{
    ColorChoice,
    builder::styling::{AnsiColor, Style},
};

/// Whether one stream is coloured.
#[derive(Debug, Clone, Copy)]
pub struct Palette {
    is_on: bool,
}

impl Palette {
    /// Of `stream`: without a choice, if it is a terminal that has colours and the user did not refuse them (<https://no-color.org>).
    pub fn new(choice: ColorChoice, stream: &impl IsTerminal) -> Palette {
        let is_on = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                stream.is_terminal() && !refused && env::var_os("TERM").is_some_and(|name| name != "dumb")
            }
        };
        Palette { is_on }
    }

    pub fn good(self, text: impl Display) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    pub fn doubtful(self, text: impl Display) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    pub fn bad(self, text: impl Display) -> String {
        self.paint(AnsiColor::Red.on_default(), text)
    }

    /// What a function says.
    pub fn guest(self, text: impl Display) -> String {
        self.paint(AnsiColor::Magenta.on_default(), text)
    }

    pub fn strong(self, text: impl Display) -> String {
        self.paint(Style::new().bold(), text)
    }

    pub fn faint(self, text: impl Display) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    /// By what a status means.
    pub fn status(self, status: u16, text: impl Display) -> String {
        match status {
            0..400 => self.good(text),
            400..500 => self.doubtful(text),
            _ => self.bad(text),
        }
    }

    fn paint(self, style: Style, text: impl Display) -> String {
        if self.is_on { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}
