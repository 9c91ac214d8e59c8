//! The settings by name: what flags, environment and a TOML file can say, each once.
//!
//! One grammar for all three: a variable and a line of the file are read as the flag of that name is.

use std::{
    ffi::OsString,
    num::{IntErrorKind, ParseIntError},
    path::Path,
    str::FromStr,
};

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser,
    error::{ContextKind, ContextValue},
};

use super::{
    ConfigError,
    admin::AdminSettings,
    capacity::CapacitySettings,
    confinement::ConfinementSettings,
    cpu::CpuSettings,
    instances::InstanceSettings,
    invocation::InvocationSettings,
    keyvalue::KeyvalueSettings,
    modules::ModuleSettings,
    outbound::OutboundSettings,
    pages::PageSettings,
    places::PlaceSettings,
    reports::ReportSettings,
    traces::{self, TraceSettings},
    upload::UploadSettings,
};
use crate::limits::number;

/// Makes a group of settings: each with its help and flag, its type, and the environment variables that set it, of which the first that is
/// set counts; names of the original first.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = [$($variable:literal),+],)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, clap::Args)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: Option<$type>,)+
        }

        impl $name {
            pub(super) const VARIABLES: &[(&str, &[&str])] = &[$((stringify!($field), &[$($variable),+])),+];

            pub(super) fn over(self, below: Self) -> Self {
                $name { $($field: self.$field.or(below.$field)),+ }
            }
        }
    };
}
pub(super) use settings;

/// A whole number; says what is expected in place of another.
pub(super) fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "expected a smaller number",
        IntErrorKind::Zero => "expected 1 or more",
        _ => "expected a whole number",
    })
}

pub(super) fn port_number(text: &str) -> Result<u16, &'static str> {
    text.parse().map_err(|_| "expected 0 to 65535")
}

/// One source's settings; what it does not name is `None`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Settings {
    #[command(flatten)]
    pub places: PlaceSettings,
    #[command(flatten)]
    pub admin: AdminSettings,
    #[command(flatten)]
    pub invocation: InvocationSettings,
    #[command(flatten)]
    pub instances: InstanceSettings,
    #[command(flatten)]
    pub cpu: CpuSettings,
    #[command(flatten)]
    pub capacity: CapacitySettings,
    #[command(flatten)]
    pub reports: ReportSettings,
    #[command(flatten)]
    pub modules: ModuleSettings,
    #[command(flatten)]
    pub outbound: OutboundSettings,
    #[command(flatten)]
    pub keyvalue: KeyvalueSettings,
    #[command(flatten)]
    pub confinement: ConfinementSettings,
    #[command(flatten)]
    pub upload: UploadSettings,
    #[command(flatten)]
    pub pages: PageSettings,
    #[command(flatten)]
    pub traces: TraceSettings,
    /// There are no traces, whatever weaker sources say.
    #[arg(skip)]
    pub without_traces: bool,
    /// Variables that are not as they should be, and are ignored: what the log is to say of them.
    #[arg(skip)]
    pub ignored: Vec<String>,
}

/// Settings whose values may have a secret: no message shows them.
const SECRET: [&str; 4] = ["otlp_endpoint", "otlp_traces_endpoint", "otlp_headers", "keyvalue_redis"];
const NOT_SHOWN: &str = "(not shown)";

/// Which environment variables set what, by the settings' names in this program (`memory_limit`).
pub fn variables() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    let groups = [
        PlaceSettings::VARIABLES,
        AdminSettings::VARIABLES,
        InvocationSettings::VARIABLES,
        InstanceSettings::VARIABLES,
        CpuSettings::VARIABLES,
        CapacitySettings::VARIABLES,
        ReportSettings::VARIABLES,
        ModuleSettings::VARIABLES,
        OutboundSettings::VARIABLES,
        KeyvalueSettings::VARIABLES,
        ConfinementSettings::VARIABLES,
        UploadSettings::VARIABLES,
        PageSettings::VARIABLES,
        TraceSettings::VARIABLES,
    ];
    groups.into_iter().flatten().copied()
}

/// A parser for the settings alone.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
pub(super) struct Alone {
    #[command(flatten)]
    pub settings: Settings,
}

impl Settings {
    /// The settings in the environment; an empty variable counts as not set.
    ///
    /// # Errors
    /// [`ConfigError::Environment`], naming the variable, its value unless it may be a secret, and what is expected.
    pub fn from_environment(get: impl Fn(&str) -> Option<OsString>) -> Result<Settings, ConfigError> {
        let mut all = Settings::default();
        for (setting, names) in variables() {
            let named = |name: &'static str| Some((name, get(name).filter(|value| !value.is_empty())?));
            let Some((name, value)) = names.iter().copied().find_map(named) else { continue };
            let shown = if SECRET.contains(&setting) { NOT_SHOWN.into() } else { value.to_string_lossy() };
            let one = Settings::one(&setting.replace('_', "-"), [&value]).map_err(|error| ConfigError::Environment {
                name: name.to_owned(),
                value: shown.into_owned(),
                reason: reason(&error),
            });
            match one {
                Err(error) if traces::IGNORED_IF_BAD.contains(&setting) => all.ignored.push(error.to_string()),
                one => all = one?.and(all),
            }
        }
        if traces::are_off(get) {
            all.traces = all.traces.without_endpoint();
            all.without_traces = true;
        }
        Ok(all)
    }

    /// The settings in a TOML file, whose keys are the flags' names.
    ///
    /// # Errors
    /// [`ConfigError::File`] with the line, or the key, and the reason.
    pub fn from_file(path: &Path) -> Result<Settings, ConfigError> {
        let error = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path)
            .map_err(|source| error(format!("{source}; name another with --config (WASMBOX_CONFIG)")))?;
        Settings::from_toml(&text).map_err(error)
    }

    pub(super) fn from_toml(text: &str) -> Result<Settings, String> {
        let table: toml::Table = text.parse().map_err(|error| syntax(text, &error))?;
        let mut all = Settings::default();
        for (key, value) in table {
            let texts =
                texts(&key, value).ok_or_else(|| format!("{key}: expected a text, a number or a truth value"))?;
            let one = Settings::one(&key, &texts).map_err(|error| format!("{key}: {}", reason(&error)))?;
            all = one.and(all);
        }
        Ok(all)
    }

    /// The setting whose flag is `--{flag}`, once for each value.
    fn one(flag: &str, values: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Settings, clap::Error> {
        let argument = |value| {
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push::<OsString>(value);
            argument
        };
        let arguments = values.into_iter().map(Into::into).map(argument);
        let matches = Alone::command().try_get_matches_from(arguments).map_err(without_secrets)?;
        Ok(Alone::from_arg_matches(&matches)?.settings)
    }

    /// These settings, and those of `below` where there are none.
    pub fn over(self, below: Settings) -> Settings {
        // Where traces go is one thing, although two settings may say it: the stronger source does.
        if self.without_traces || self.traces.have_endpoint() {
            self.and(Settings { traces: below.traces.without_endpoint(), without_traces: false, ..below })
        } else {
            self.and(below)
        }
    }

    /// Each setting for itself: those of one source.
    fn and(self, below: Settings) -> Settings {
        Settings {
            places: self.places.over(below.places),
            admin: self.admin.over(below.admin),
            invocation: self.invocation.over(below.invocation),
            instances: self.instances.over(below.instances),
            cpu: self.cpu.over(below.cpu),
            capacity: self.capacity.over(below.capacity),
            reports: self.reports.over(below.reports),
            modules: self.modules.over(below.modules),
            outbound: self.outbound.over(below.outbound),
            keyvalue: self.keyvalue.over(below.keyvalue),
            confinement: self.confinement.over(below.confinement),
            upload: self.upload.over(below.upload),
            pages: self.pages.over(below.pages),
            traces: self.traces.over(below.traces),
            without_traces: self.without_traces || below.without_traces,
            ignored: if self.ignored.is_empty() { below.ignored } else { self.ignored },
        }
    }
}

/// The values of a key as a command line has them. Only a setting that may be given several times has an array.
fn texts(key: &str, value: toml::Value) -> Option<Vec<String>> {
    let repeats = || {
        let command = Alone::command();
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(key));
        argument.is_some_and(|argument| matches!(argument.get_action(), ArgAction::Append))
    };
    match value {
        toml::Value::Array(values) if repeats() => values.into_iter().map(text).collect(),
        value => Some(vec![text(value)?]),
    }
}

fn text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number::written(number)),
        toml::Value::Boolean(boolean) => Some(boolean.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// What is wrong in a file: not the line itself, which may have a secret.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message().trim())
}

/// clap's message of a flag that is not as it should be, without the value of one that may have a secret.
pub fn without_secrets(mut error: clap::Error) -> clap::Error {
    let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    let flag = argument.split([' ', '=']).next().and_then(|flag| flag.strip_prefix("--")).unwrap_or_default();
    if SECRET.contains(&flag.replace('-', "_").as_str()) && error.get(ContextKind::InvalidValue).is_some() {
        error.insert(ContextKind::InvalidValue, ContextValue::String(NOT_SHOWN.into()));
    }
    error
}

/// clap's message without its surroundings: `invalid value 'x' for '--port <PORT>': expected 0 to 65535`.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information") && !line.starts_with("Usage:"))
        .collect();
    lines.join("; ").trim_start_matches("error: ").to_owned()
}

/// Adds to each setting's help, of those that the command has, the variables that set it too.
pub fn with_environment_in_help(command: clap::Command) -> clap::Command {
    variables().fold(command, |command, (setting, names)| {
        if command.get_arguments().all(|argument| argument.get_id() != setting) {
            return command;
        }
        command.mut_arg(setting, |argument| match argument.get_help().map(ToString::to_string) {
            Some(help) => argument.help(format!("{help} [env: {}]", names.join(", "))),
            None => argument,
        })
    })
}
