//! The system calls that are left to the process that compiles, once it has all it needs: memory, its threads, time, writing the code, ending.
//!
//! There is none that opens, makes, maps, names or sends anything, none that starts a thread or a process, or touches another one. All others
//! fail with EPERM rather than end the process: what a library tries when it panics or measures the machine is no attack, and fails as it would
//! under any other profile; what an attacker tries fails the same way, until its time is over.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

const STDOUT: u64 = 1;
const STDERR: u64 = 2;

/// Whatever their arguments are.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getcpu,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Leaves nothing else to all threads of this process.
///
/// # Errors
/// If the kernel has no filters of system calls, or refuses this one.
pub fn restrict() -> Result<(), seccompiler::Error> {
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    apply_filter_all_threads(&program)
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let argument = |index, operator, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value);
    let no_code = || argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    // Private memory, of no file and no stack: the limit on memory counts nothing else (RLIMIT_DATA). For the same reason there is no
    // `mremap`, which could enlarge the stack.
    let (kind, private) =
        (libc::MAP_TYPE | libc::MAP_ANONYMOUS | libc::MAP_GROWSDOWN, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let private = argument(3, SeccompCmpOp::MaskedEq(kind as u64), private as u64)?;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![no_code()?, private])?]);
    rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![no_code()?])?]);
    for call in [libc::SYS_write, libc::SYS_writev] {
        let to = |descriptor| SeccompRule::new(vec![argument(0, SeccompCmpOp::Eq, descriptor)?]);
        rules.insert(call, vec![to(STDOUT)?, to(STDERR)?]);
    }
    // How a process aborts.
    let itself = argument(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    let abort = argument(2, SeccompCmpOp::Eq, libc::SIGABRT as u64)?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![itself, abort])?]);
    Ok(rules)
}
