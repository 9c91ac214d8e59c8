//! A function that is ready to be invoked.

use std::sync::Arc;

use super::{
    file::{Found, stem},
    settings::{FunctionSettings, OutputMode, PathMode},
};
use crate::{
    admission::{Share, Shares},
    limits::{LimitCaps, Limits},
    metrics::{FunctionMetrics, Metrics},
    sandbox::{Grants, Program},
};

/// A program with its settings, as of one state of its files.
pub struct Function {
    /// The file's name without its ending.
    pub name: Arc<str>,
    pub found: Found,
    pub program: Arc<Program>,
    /// Bytes of compiled code.
    pub code_bytes: usize,
    /// For requests that name no limits.
    pub limits: Limits,
    pub caps: LimitCaps,
    pub grants: Arc<Grants>,
    pub output: OutputMode,
    pub path: PathMode,
    /// Bytes of output held back before the response starts.
    pub hold: usize,
    pub metrics: Arc<FunctionMetrics>,
    /// Of admission.
    pub share: Arc<Share>,
}

/// The operator's values, which settings refine.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub limits: Limits,
    pub caps: LimitCaps,
    pub hold: usize,
}

/// A CGI header block must be whole before the response starts.
const LEAST_CGI_HOLD: usize = 64 << 10;

impl Function {
    pub fn new(
        found: Found,
        program: Program,
        code_bytes: usize,
        settings: FunctionSettings,
        defaults: &Defaults,
        metrics: &Metrics,
        shares: &Shares,
    ) -> Self {
        let name: Arc<str> = stem(&found.file).into();
        let hold = settings.output_buffer_bytes.unwrap_or(defaults.hold);
        let least_hold = if settings.output == OutputMode::Cgi { LEAST_CGI_HOLD } else { 0 };
        Function {
            metrics: metrics.function(&name),
            share: shares.of(&name),
            name,
            found,
            program: Arc::new(program),
            code_bytes,
            limits: settings.limits(defaults.limits),
            caps: settings.caps(defaults.caps),
            output: settings.output,
            path: settings.path,
            hold: hold.max(least_hold),
            grants: Arc::new(Grants {
                args: settings.args,
                env: settings.env.into_iter().collect(),
                preopens: settings.preopens,
                outbound_hosts: settings.allowed_outbound_hosts,
            }),
        }
    }
}
