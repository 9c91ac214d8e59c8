//! Modules, and what they may be granted.

use std::path::PathBuf;

use super::{
    ConfigError,
    settings::{settings, whole},
    within,
};
use crate::{
    confined::{self, Allowance},
    engine::tier::Tiers,
    limits::{ByteSize, ConfigDuration},
};

/// Which runtime the original's `WASM_RUNTIME` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WasmRuntime {
    Wasmtime,
    /// Accepted; wasmtime runs its modules.
    Wasmedge,
}

settings! {
    /// Modules, and what they may be granted.
    pub struct ModuleSettings {
        /// Largest module file [default: an eighth of the memory limit, 16Mi to 256Mi]
        #[arg(long, value_name = "SIZE")]
        max_module_size: ByteSize = ["MAX_MODULE_SIZE"],
        /// Most compiled code held ready in memory [default: a quarter of the memory limit, at most 1Gi]
        #[arg(long, value_name = "SIZE")]
        module_memory: ByteSize = ["MODULE_MEMORY"],
        /// Most compiled code in the cache directory [default: 2Gi]
        #[arg(long, value_name = "SIZE")]
        cache_size: ByteSize = ["CACHE_SIZE"],
        /// Modules compiled at once [default: 2, below 1Gi of memory 1]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        compile_jobs: usize = ["COMPILE_JOBS"],
        /// Most memory of one compilation, at least 64Mi [default: half of the memory limit, below 1Gi of it five eighths, divided by --compile-jobs, at most 4Gi]
        #[arg(long, value_name = "SIZE")]
        compile_memory: ByteSize = ["COMPILE_MEMORY"],
        /// Longest compilation, ms or with unit [default: 10m]
        #[arg(long, value_name = "TIME")]
        compile_time: ConfigDuration = ["COMPILE_TIME"],
        /// Whether a large module that is new answers from baseline code, until it is optimised: auto or off [default: auto]
        #[arg(long, value_name = "WHETHER")]
        tiers: Tiers = ["TIERS"],
        /// Run components of WASI 0.3, which wasmtime calls experimental [default: true]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        wasi_p3: bool = ["WASI_P3"],
        /// Run native images (.cwasm) found in the functions directory: only if nobody else can write there
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        trust_precompiled: bool = ["TRUST_PRECOMPILED"],
        /// Directory below which functions' settings may open directories to their guests; may be given several times [default: none]
        #[arg(long, value_name = "DIR", value_delimiter = ',')]
        preopen_root: Vec<PathBuf> = ["PREOPEN_ROOTS"],
        /// Accepted for compatibility: everything runs on wasmtime
        #[arg(long, value_name = "NAME")]
        wasm_runtime: WasmRuntime = ["WASM_RUNTIME"],
    }
}

/// The compiler itself, with its threads, needs about half of this.
const LEAST_COMPILE_MEMORY: ByteSize = ByteSize::of_mebibytes(64);

/// With less memory, one module is compiled at a time, and may use more of it: a component of 300 KB needs about 60 MiB.
const SMALL_BOX: u64 = 1 << 30;

impl ModuleSettings {
    pub(super) fn jobs(&self, memory_limit: u64) -> usize {
        self.compile_jobs.unwrap_or(if memory_limit < SMALL_BOX { 1 } else { 2 })
    }

    /// What each of `jobs` compilations may use: by default so that all of them together leave guests half of the memory, in small boxes three
    /// eighths.
    pub(super) fn compile(&self, memory_limit: u64, jobs: usize) -> Result<Allowance, ConfigError> {
        let all = if memory_limit < SMALL_BOX { memory_limit / 8 * 5 } else { memory_limit / 2 };
        let share = ByteSize::of_bytes(all / jobs as u64);
        let memory =
            self.compile_memory.unwrap_or_else(|| share.clamp(LEAST_COMPILE_MEMORY, ByteSize::of_mebibytes(4 << 10)));
        within("--compile-memory", memory, LEAST_COMPILE_MEMORY, ByteSize::MAX)?;
        Ok(Allowance {
            memory: memory.bytes(),
            time: self.compile_time.unwrap_or(ConfigDuration::from_secs(600)).duration(),
            code: confined::LARGEST_CODE,
        })
    }
}

/// The directories as they are without symlinks.
pub(super) fn canonical(roots: Vec<PathBuf>) -> Result<Vec<PathBuf>, ConfigError> {
    let canonical = |root: PathBuf| {
        root.canonicalize().ok().filter(|root| root.is_dir()).ok_or_else(|| ConfigError::Value {
            name: "--preopen-root",
            value: root.display().to_string(),
            expected: "an existing directory".into(),
        })
    };
    roots.into_iter().map(canonical).collect()
}
