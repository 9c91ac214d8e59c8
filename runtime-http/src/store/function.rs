//! A function that is ready to be invoked.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
};

use prometheus::IntCounter;

use super::{
    file::{FileVersion, stem},
    methods::Methods,
    promotion::Baseline,
    settings::{EnvironmentMode, GrantedSettings, LimitSettings, OutputMode, PathMode},
};
use crate::{
    admission::Share,
    by_name::ByName,
    engine::tier::Tier,
    invocation::{Grants, InvocationId},
    keyvalue::FunctionStore,
    limits::{LimitCaps, Limits},
    metrics::FunctionMetrics,
    sandbox::{
        Carriers, GuestConfig, KeptInstances, Program, Reuse,
        file_access::FileAccess,
        log_allowance::LogAllowance,
        outbound::{FunctionAccess, InvocationAccess},
    },
    traces::Propagated,
    worker::{estimate::ExecutionEstimate, quota::CpuBudget},
};

/// A program with its settings, as of one state of its files.
pub struct Function {
    /// The file's name without its ending.
    pub name: Arc<str>,
    pub version: FileVersion,
    pub program: Program,
    /// Bytes of compiled code.
    pub code_bytes: usize,
    pub tier: Tier,
    /// Until there is optimised code in its place.
    pub baseline: Option<Baseline>,
    /// Its invocations are counted by tier.
    pub invocations: IntCounter,
    /// For requests that name no limits, over the operator's.
    pub limits: LimitSettings,
    /// The most that a request may name, over the operator's.
    pub caps: LimitSettings,
    pub grants: Arc<Grants>,
    /// What its guests are configured with.
    pub config: Arc<GuestConfig>,
    /// If there is a directory among the grants.
    pub files: Option<Arc<FileAccess>>,
    /// What its guests keep, if they may keep anything.
    pub keyvalue: Option<FunctionStore>,
    /// How its guests reach others.
    pub outbound: Arc<FunctionAccess>,
    pub output: OutputMode,
    pub path: PathMode,
    pub environment: EnvironmentMode,
    /// What runs it; `None`: whatever comes.
    pub methods: Option<Methods>,
    /// Bytes of output held back before the response starts.
    pub buffer_limit: usize,
    /// The most requests that one of its instances serves, if that is more than one.
    most_served: Option<NonZeroU32>,
    /// Its instances that serve several requests at once, if they may.
    pub carriers: Option<Arc<Carriers>>,
    pub metrics: Arc<FunctionMetrics>,
    pub estimate: Arc<ExecutionEstimate>,
    /// Of admission.
    pub share: Arc<Share>,
    /// What its invocations have used of their quotas.
    pub cpu_budget: Arc<CpuBudget>,
    /// What they may write to the log; `None`: as much as they like.
    pub log_allowance: Option<Arc<LogAllowance>>,
}

/// What functions have by name: a new version of a file goes on with it.
#[derive(Debug, Default)]
pub struct ByFunction {
    shares: ByName<Share>,
    cpu_budgets: ByName<CpuBudget>,
    log_allowances: ByName<LogAllowance>,
}

/// The operator's values, which settings refine.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub limits: Limits,
    pub caps: LimitCaps,
    pub buffer_limit: usize,
    /// Of one function to the log, bytes a second; `None`: as much as it likes.
    pub log_rate: Option<NonZeroU64>,
}

/// A CGI header block must be whole before the response starts.
const LEAST_CGI_BUFFER: usize = 64 << 10;

impl Function {
    pub fn new(
        version: FileVersion,
        program: Program,
        (code_bytes, tier, invocations): (usize, Tier, IntCounter),
        (settings, preopens): GrantedSettings,
        defaults: &Defaults,
        functions: &ByFunction,
        outbound: Arc<FunctionAccess>,
    ) -> Self {
        let name: Arc<str> = stem(&version.file).into();
        let buffer_limit = settings.output_buffer_bytes.unwrap_or(defaults.buffer_limit);
        let is_http = matches!(program, Program::Http(_));
        let least_buffer = if settings.output == OutputMode::Cgi { LEAST_CGI_BUFFER } else { 0 };
        Function {
            metrics: outbound.metrics().clone(),
            outbound,
            estimate: Arc::default(),
            share: functions.shares.of(&name, Share::new),
            cpu_budget: functions.cpu_budgets.of(&name, CpuBudget::default),
            log_allowance: defaults
                .log_rate
                .map(|rate| functions.log_allowances.of(&name, || LogAllowance::new(rate.get()))),
            name,
            version,
            program,
            code_bytes,
            tier,
            baseline: (tier == Tier::Baseline).then(Baseline::default),
            invocations,
            limits: settings.limits,
            caps: settings.caps,
            output: settings.output,
            path: settings.path,
            environment: settings.environment,
            methods: settings.methods.or_else(|| (!is_http).then(Methods::of_commands)),
            buffer_limit: buffer_limit.max(least_buffer),
            most_served: settings.instance.reuse.filter(|most| most.get() > 1),
            carriers: settings.instance.concurrent.filter(|most| most.get() > 1).map(Carriers::new),
            config: Arc::new(settings.config.into_iter().collect()),
            files: None,
            keyvalue: None,
            grants: Arc::new(Grants {
                args: settings.args,
                env: settings.env.into_iter().collect(),
                preopens,
                outbound: settings.allowed_outbound_hosts,
            }),
        }
    }

    /// How its instances are reused, if they are: they wait for their next requests among `instances`.
    pub fn reuse(&self, instances: &Arc<KeptInstances>) -> Option<Reuse> {
        let (Some(most), Program::Http(program)) = (self.most_served, &self.program) else { return None };
        Some(Reuse { instances: instances.clone(), program: program.clone(), most })
    }

    /// The way to others of one of its invocations, which belongs to `trace`.
    pub fn outbound(&self, id: InvocationId, trace: Option<Propagated>) -> Arc<InvocationAccess> {
        self.outbound.invocation(id, self.name.clone(), trace)
    }

    /// Whether paths below its name are its own.
    pub fn has_paths(&self) -> bool {
        matches!(self.program, Program::Http(_)) || self.path == PathMode::Prefix
    }
}
