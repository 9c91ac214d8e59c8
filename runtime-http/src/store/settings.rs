//! Per-function settings: `<module>.toml` beside the module.
//!
//! Whoever can write the functions directory writes these, so they can only grant what the operator made grantable: preopened
//! directories must lie under a root the operator named, outbound hosts must be allowed by the operator too, limits stay below
//! the operator's caps.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, sync::Arc};

use serde::Deserialize;

use super::{
    methods::Methods,
    unknown_key::{self, Keys},
};
use crate::{
    excerpt::excerpt,
    invocation::{HostDirectory, OutboundGrant, Preopen, PreopenRoot},
    limits::{CpuQuota, InvocationTimeout, LimitCaps, Limits, MemoryRequest},
    module_format::ProgramKind,
};

/// The file as written. Unknown keys are refused, so that a misspelt limit is not silently no limit.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FunctionSettings {
    /// Defaults for requests that name no limit.
    pub limits: LimitSettings,
    /// The most a request may ask for.
    pub caps: LimitSettings,
    /// Arguments before those of the request.
    pub args: Vec<String>,
    /// Environment variables beside the CGI ones.
    pub env: BTreeMap<String, String>,
    /// What a component reads by `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// Directories of the host that the guest sees.
    pub preopens: Vec<PreopenSetting>,
    /// Where a guest may send HTTP requests.
    pub allowed_outbound_hosts: Vec<OutboundGrant>,
    /// What stdout is.
    pub output: OutputMode,
    /// What runs the function; without it, `GET`, `HEAD` and `POST` run a command, and all methods an HTTP component.
    pub methods: Option<Methods>,
    /// Which paths there are, and what the guest sees of them.
    pub path: PathMode,
    /// What a command's environment is.
    pub environment: EnvironmentMode,
    /// How much output is held back, so that a failing function still gets its error status; `0` streams at once.
    pub output_buffer_bytes: Option<usize>,
    /// How long an instance of an HTTP component lives.
    pub instance: InstanceSettings,
    /// How the module is made from its sources: for `wasmbox build` and `wasmbox dev`. A box that serves does nothing with it.
    pub build: Option<BuildSettings>,
}

/// What a developer runs to make the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildSettings {
    /// For `sh -c`, in the project's directory, which is the one above that of the functions.
    pub command: String,
    /// The module that it makes: a path in the project's directory.
    pub output: PathBuf,
    /// Files and directories there whose changes make it anew.
    pub watch: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LimitSettings {
    pub cpu_quota: Option<CpuQuota>,
    pub memory_request: Option<MemoryRequest>,
    pub invocation_timeout: Option<InvocationTimeout>,
}

/// For HTTP components.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct InstanceSettings {
    /// The most requests that one instance serves; each has a fresh one without it.
    pub reuse: Option<NonZeroU32>,
    /// The most of them at once; one after the other without it.
    pub concurrent: Option<NonZeroU32>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PreopenSetting {
    /// Absolute, below one of the operator's preopen roots.
    pub host: PathBuf,
    /// Where the guest sees it.
    pub guest: String,
    /// Read-only unless `true`.
    #[serde(default)]
    pub writable: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputMode {
    /// Stdout is the response body.
    #[default]
    Body,
    /// Stdout starts with a CGI header block (RFC 3875, section 6), then the body.
    Cgi,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathMode {
    /// The request as it came: `/module/path`.
    #[default]
    Full,
    /// Without the module's name: `/path`.
    Stripped,
    /// Of a command: paths below its name are its own, too, as CGI's `PATH_INFO`.
    Prefix,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnvironmentMode {
    /// CGI's variables, and those of the settings.
    #[default]
    Cgi,
    /// Those of the settings alone.
    Settings,
}

/// A settings file that cannot be used: its function answers 422 `module-invalid`, all others run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    #[error("{file}: {reason}")]
    Unreadable { file: String, reason: String },
    #[error(
        "{file}: preopen {path:?} is not an existing directory below one of the operator's --preopen-root directories"
    )]
    PreopenNotGranted { file: String, path: PathBuf },
    #[error(
        "{file}: outbound host {host:?} is not granted by the operator: let --allow-outbound (ALLOW_OUTBOUND) have it, or a domain or network in which it is"
    )]
    OutboundNotGranted { file: String, host: String },
    #[error("{file}: instance.{setting} is for HTTP components {of}, and this one {what}; remove one of both")]
    NotReusable { file: String, setting: &'static str, of: &'static str, what: &'static str },
    #[error("{file}: {setting} {value} is above the operator's cap {maximum}")]
    AboveCap { file: String, setting: &'static str, value: String, maximum: String },
}

/// The most bytes of output that are buffered before an answer begins, whoever asks for them.
pub const LARGEST_OUTPUT_BUFFER: usize = 16 << 20;

/// What a function's `[config]` may have: values, and bytes of them and their names. A component can have all of it copied at once.
const MOST_CONFIG_VALUES: usize = 256;
const MOST_CONFIG_BYTES: usize = 32 << 10;

/// What the operator lets per-function settings grant.
#[derive(Debug, Clone, Default)]
pub struct OperatorGrants {
    /// The most requests that one instance may serve; 1 if `None`.
    pub reuse: Option<NonZeroU32>,
    /// The most of them at once; 1 if `None`.
    pub concurrent: Option<NonZeroU32>,
    /// Below which preopens may lie.
    pub preopen_roots: Vec<Arc<PreopenRoot>>,
    pub outbound: Vec<OutboundGrant>,
}

/// Settings, and the directories that they name, which are granted.
pub type GrantedSettings = (FunctionSettings, Vec<Preopen>);

impl FunctionSettings {
    /// Parses `text` and checks it against what the operator grants; gives the granted directories, too.
    ///
    /// # Errors
    /// [`BadSettings`], naming `file` and what is wrong in it.
    pub fn parse(
        file: &str,
        text: &str,
        caps: LimitCaps,
        grants: &OperatorGrants,
    ) -> Result<GrantedSettings, BadSettings> {
        let settings = Self::well_formed(file, text)?;
        settings.check_caps(file, caps, grants)?;
        let preopens = settings.granted_preopens(file, grants)?;
        for host in &settings.allowed_outbound_hosts {
            if !grants.outbound.iter().any(|granted| granted.covers(host)) {
                let host = excerpt(host);
                return Err(BadSettings::OutboundNotGranted { file: file.to_owned(), host });
            }
        }
        Ok((settings, preopens))
    }

    /// Parses `text` and checks all of it that no operator has a say in.
    ///
    /// # Errors
    /// [`BadSettings::Unreadable`], naming `file` and what is wrong in it.
    pub fn well_formed(file: &str, text: &str) -> Result<FunctionSettings, BadSettings> {
        let settings = Self::read(file, text)?;
        settings.check_text(file)?;
        Ok(settings)
    }

    /// Parses `text`, and checks nothing else.
    ///
    /// # Errors
    /// [`BadSettings::Unreadable`], naming `file` and what is wrong in it.
    pub fn read(file: &str, text: &str) -> Result<FunctionSettings, BadSettings> {
        toml::from_str(text).map_err(|error| BadSettings::Unreadable {
            file: file.to_owned(),
            reason: excerpt(format_args!(
                "{}{}",
                error.to_string().trim(),
                unknown_key::proposals(text, &Self::tables())
            )),
        })
    }

    fn tables() -> [Keys; 6] {
        [
            Keys::of::<FunctionSettings>(""),
            Keys::of::<LimitSettings>("limits"),
            Keys::of::<LimitSettings>("caps"),
            Keys::of::<PreopenSetting>("preopens"),
            Keys::of::<BuildSettings>("build"),
            Keys::of::<InstanceSettings>("instance"),
        ]
    }

    /// The directories to open at each invocation.
    ///
    /// # Errors
    /// [`BadSettings::PreopenNotGranted`], if one of them is none, or not below a root of the operator's.
    fn granted_preopens(&self, file: &str, grants: &OperatorGrants) -> Result<Vec<Preopen>, BadSettings> {
        let granted = |setting: &PreopenSetting| {
            // How it is written is up to the author; what is opened is the place below the root that this means now.
            let path = Some(&setting.host).filter(|host| host.is_absolute())?.canonicalize().ok()?;
            let root = grants.preopen_roots.iter().find(|root| path.starts_with(root.path()))?;
            let path = path.strip_prefix(root.path()).ok()?.to_owned();
            let directory = HostDirectory::Below { root: root.clone(), path };
            directory.open().ok()?;
            Some(Preopen { directory, guest: setting.guest.clone(), writable: setting.writable })
        };
        let not_granted = |setting: &PreopenSetting| BadSettings::PreopenNotGranted {
            file: file.to_owned(),
            path: excerpt(setting.host.display()).into(),
        };
        self.preopens.iter().map(|setting| granted(setting).ok_or_else(|| not_granted(setting))).collect()
    }

    /// Checks what depends on the program that they are of.
    ///
    /// # Errors
    /// [`BadSettings::NotReusable`], naming `file`.
    pub fn check_program(&self, file: &str, kind: ProgramKind) -> Result<(), BadSettings> {
        const REUSE: (&str, &str) = ("reuse", "without preopens");
        let ((setting, of), what) = match kind {
            _ if self.instance.reuse.is_none() => return Ok(()),
            ProgramKind::Core | ProgramKind::Command => (REUSE, "is a command, which ends with each request"),
            ProgramKind::Http { .. } if !self.preopens.is_empty() => (REUSE, "has preopens"),
            ProgramKind::Http { at_once: false } if self.instance.concurrent > NonZeroU32::new(1) => {
                (("concurrent", "of WASI 0.3"), "is of WASI 0.2, whose instances serve one request at a time")
            }
            ProgramKind::Http { .. } => return Ok(()),
        };
        Err(BadSettings::NotReusable { file: file.to_owned(), setting, of, what })
    }

    fn check_text(&self, file: &str) -> Result<(), BadSettings> {
        let unreadable = |reason: String| BadSettings::Unreadable { file: file.to_owned(), reason: excerpt(reason) };
        if let Some(arg) = self.args.iter().find(|arg| arg.contains('\0')) {
            return Err(unreadable(format!("argument {arg:?} contains a NUL byte")));
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(unreadable(format!(
                    "environment variable {name:?} has an empty name, a '=' or a NUL byte"
                )));
            }
        }
        let [at_once, in_all] =
            [self.instance.concurrent, self.instance.reuse].map(|number| number.map_or(1, NonZeroU32::get));
        if at_once > in_all {
            return Err(unreadable(format!(
                "instance.concurrent {at_once} is above instance.reuse {in_all}, the most requests that an instance serves in all; set reuse to {at_once} or more"
            )));
        }
        if self.config.len() > MOST_CONFIG_VALUES {
            return Err(unreadable(format!(
                "[config] has {} values; there may be {MOST_CONFIG_VALUES}",
                self.config.len()
            )));
        }
        let bytes: usize = self.config.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > MOST_CONFIG_BYTES {
            return Err(unreadable(format!(
                "[config] has {bytes} bytes of names and values; there may be {MOST_CONFIG_BYTES}"
            )));
        }
        Ok(())
    }

    fn check_caps(&self, file: &str, caps: LimitCaps, grants: &OperatorGrants) -> Result<(), BadSettings> {
        fn check<T: Ord + ToString>(
            file: &str,
            setting: &'static str,
            values: [Option<T>; 2],
            cap: T,
        ) -> Result<(), BadSettings> {
            match values.into_iter().flatten().find(|value| *value > cap) {
                None => Ok(()),
                Some(value) => Err(BadSettings::AboveCap {
                    file: file.to_owned(),
                    setting,
                    value: value.to_string(),
                    maximum: cap.to_string(),
                }),
            }
        }
        let (instance, one) = (self.instance, NonZeroU32::MIN);
        check(file, "instance.reuse", [instance.reuse, None], grants.reuse.unwrap_or(one))?;
        check(file, "instance.concurrent", [instance.concurrent, None], grants.concurrent.unwrap_or(one))?;
        check(file, "output-buffer-bytes", [self.output_buffer_bytes, None], LARGEST_OUTPUT_BUFFER)?;
        check(file, "cpu-quota", [self.limits.cpu_quota, self.caps.cpu_quota], caps.cpu_quota)?;
        check(file, "memory-request", [self.limits.memory_request, self.caps.memory_request], caps.memory)?;
        check(file, "invocation-timeout", [self.limits.invocation_timeout, self.caps.invocation_timeout], caps.timeout)
    }
}

impl LimitSettings {
    /// A function's defaults: its own over the operator's.
    pub fn over_defaults(&self, defaults: Limits) -> Limits {
        Limits {
            cpu_quota: self.cpu_quota.unwrap_or(defaults.cpu_quota),
            memory: self.memory_request.unwrap_or(defaults.memory),
            timeout: self.invocation_timeout.unwrap_or(defaults.timeout),
        }
    }

    /// A function's caps: its own over the operator's, which they are not above, unless that of memory was lowered with the box's.
    pub fn over_caps(&self, caps: LimitCaps) -> LimitCaps {
        LimitCaps {
            cpu_quota: self.cpu_quota.unwrap_or(caps.cpu_quota),
            memory: self.memory_request.unwrap_or(caps.memory).min(caps.memory),
            timeout: self.invocation_timeout.unwrap_or(caps.timeout),
        }
    }
}
