//! Limits of an invocation.

use super::{ConfigError, settings::settings, within};
use crate::{
    limits::{ByteSize, CpuQuota, InvocationTimeout, LimitCaps, Limits, MemoryRequest, PlainBytes},
    sizing::admitted::Admitted,
    store::settings::LARGEST_OUTPUT_BUFFER,
};

/// Where nothing is set: longer ones hold their memory for longer than most who wait would.
const LONGEST_TIMEOUT: InvocationTimeout = InvocationTimeout::from_millis(5 * 60 * 1000);

settings! {
    /// Limits of an invocation.
    pub struct InvocationSettings {
        /// CPU of an invocation that names none, in millicores [default: 500]
        #[arg(long, value_name = "QUOTA")]
        cpu_quota: CpuQuota = ["DEFAULT_CPU_QUOTA"],
        /// Memory limit of an invocation that names none, MiB or with suffix [default: 200, or a quarter of what is admitted if that is less]
        #[arg(long, value_name = "SIZE")]
        memory_request: MemoryRequest = ["DEFAULT_MEMORY_REQUEST"],
        /// Time limit of an invocation that names none, ms or with unit [default: 60000]
        #[arg(long, value_name = "TIME")]
        invocation_timeout: InvocationTimeout = ["DEFAULT_INVOCATION_TIMEOUT"],
        /// Most CPU a request may ask for [default: all cores]
        #[arg(long, value_name = "QUOTA")]
        max_cpu_quota: CpuQuota = ["MAX_CPU_QUOTA"],
        /// Most memory a request may ask for, at most 4Gi [default: half of what is admitted, at most 4Gi]
        #[arg(long, value_name = "SIZE")]
        max_memory_request: MemoryRequest = ["MAX_MEMORY_REQUEST"],
        /// Longest time a request may ask for [default: 5m]
        #[arg(long, value_name = "TIME")]
        max_invocation_timeout: InvocationTimeout = ["MAX_INVOCATION_TIMEOUT"],
        /// Largest request body [default: 1Gi]
        #[arg(long, value_name = "SIZE")]
        max_body: ByteSize = ["MAX_BODY"],
        /// Most output of one invocation [default: 4Gi]
        #[arg(long, value_name = "SIZE")]
        max_output: ByteSize = ["MAX_OUTPUT"],
        /// Output held back, in bytes, so that a function that fails later still gets its error status [default: 65536]
        #[arg(long, value_name = "BYTES")]
        output_buffer_bytes: PlainBytes = ["OUTPUT_BUFFER_BYTES"],
        /// Tell clients of a function that failed what it wrote to standard error last [default: true]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        stderr_in_errors: bool = ["STDERR_IN_ERRORS"],
        /// Deepest Wasm stack, in bytes [default: 1048576]
        #[arg(long, value_name = "BYTES")]
        max_wasm_stack: PlainBytes = ["MAX_WASM_STACK"],
    }
}

/// What invocations may use.
pub(super) struct InvocationLimits {
    pub defaults: Limits,
    pub caps: LimitCaps,
    pub max_body: ByteSize,
    pub max_output: ByteSize,
    pub output_buffer: ByteSize,
    pub stderr_in_errors: bool,
    pub max_wasm_stack: ByteSize,
}

impl InvocationSettings {
    /// For a box of so many cores, which admits so much.
    pub(super) fn resolve(self, cores: usize, admitted: &Admitted) -> Result<InvocationLimits, ConfigError> {
        let all_cores = u32::try_from(cores * 1000).ok().and_then(CpuQuota::from_millicores).unwrap_or(CpuQuota::MAX);
        let defaults = Limits::default();
        let limits = InvocationLimits {
            defaults: Limits {
                cpu_quota: self.cpu_quota.unwrap_or(defaults.cpu_quota),
                memory: admitted.default_request,
                timeout: self.invocation_timeout.unwrap_or(defaults.timeout),
            },
            caps: LimitCaps {
                cpu_quota: self.max_cpu_quota.unwrap_or(all_cores),
                memory: admitted.cap,
                timeout: self
                    .max_invocation_timeout
                    .unwrap_or_else(|| self.invocation_timeout.unwrap_or(LONGEST_TIMEOUT).max(LONGEST_TIMEOUT)),
            },
            max_body: self.max_body.unwrap_or(ByteSize::of_mebibytes(1 << 10)),
            max_output: self.max_output.unwrap_or(ByteSize::of_mebibytes(4 << 10)),
            output_buffer: self.output_buffer_bytes.map_or(ByteSize::of_bytes(64 << 10), |PlainBytes(size)| size),
            stderr_in_errors: self.stderr_in_errors.unwrap_or(true),
            max_wasm_stack: self.max_wasm_stack.map_or(ByteSize::of_mebibytes(1), |PlainBytes(size)| size),
        };
        within(
            "--output-buffer-bytes",
            limits.output_buffer,
            ByteSize::of_bytes(0),
            ByteSize::of_bytes(LARGEST_OUTPUT_BUFFER as u64),
        )?;
        within("--max-wasm-stack", limits.max_wasm_stack, ByteSize::of_bytes(64 << 10), ByteSize::of_mebibytes(64))?;
        Ok(limits)
    }
}
