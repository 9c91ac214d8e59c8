//! The box beside which the doctor runs: in a container it is the first process, and `kubectl exec` gives neither its flags nor what the shim
//! added to its environment.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use clap::FromArgMatches;

use crate::{
    cli::{self, Cli, Command},
    config::Settings,
};

/// Flags and environment of the box that is process 1.
#[derive(Debug, Default)]
pub struct FirstProcess {
    pub flags: Settings,
    pub config: Option<PathBuf>,
    environment: Vec<OsString>,
}

impl FirstProcess {
    /// Nothing is in it, if there is none, or if it is another user's.
    pub fn read() -> FirstProcess {
        let words = |file: &str| -> Vec<OsString> {
            let bytes = fs::read(format!("/proc/1/{file}")).unwrap_or_default();
            let words = bytes.split(|&byte| byte == 0).filter(|word| !word.is_empty());
            words.map(|word| OsString::from_vec(word.to_vec())).collect()
        };
        let matches = cli::command().try_get_matches_from(words("cmdline"));
        match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
            Ok(Cli { command: Command::Serve(arguments) })
                if fs::read("/proc/1/comm").is_ok_and(|name| name == b"wasmbox\n") =>
            {
                FirstProcess { flags: arguments.settings, config: arguments.config, environment: words("environ") }
            }
            _ => FirstProcess::default(),
        }
    }

    /// A variable of its environment.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        let mut values = self.environment.iter().filter_map(|variable| {
            let rest = variable.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(OsStr::from_bytes(rest).to_owned())
        });
        values.next()
    }
}
