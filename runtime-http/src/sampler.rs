//! The one thread that looks at what the container uses, and acts on it: gates of admission, the ceiling of guests' memory, evictions,
//! memory given back.
//!
//! It looks often while memory could run short before it looks again, else ten times a second. Each decision is made elsewhere, by
//! [`crate::memory`]; here they are put together and carried out.

mod watched;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::watched::Watched;
use crate::{
    admission::Gate,
    container::{Container, MemoryUse},
    core::Core,
    cpu_window::CpuWindow,
    engine::Engines,
    invocation::CancelReason,
    limits::{Cores, Fraction},
    memory::{
        eviction::Need,
        forecast::{Forecast, Watermarks},
        reclaim::{self, Spare},
        throttle::Throttle,
    },
    metrics::gauge,
};

/// Between two looks, while memory could run short soon.
const OFTEN: Duration = Duration::from_millis(5);
/// Else.
const SELDOM: Duration = Duration::from_millis(100);
/// Until an eviction that is decided now has freed memory.
const AHEAD: Duration = Duration::from_millis(10);
/// CPU in use is an average over so many intervals of at least this.
const CPU_PERIOD: Duration = Duration::from_millis(100);
const CPU_WINDOW: usize = 2;
/// A task that waited for memory for more than a fifth of this (PSI) is a sign like the high mark.
const STALL_WINDOW: Duration = Duration::from_millis(100);
/// Between two attempts to give memory back.
const RECLAIM_PERIOD: Duration = Duration::from_secs(2);
/// Between two looks at the memory limit, which changes when a pod is resized in place.
const LIMIT_PERIOD: Duration = Duration::from_secs(1);
/// Nothing has run for this long: what the last burst left behind is given back.
const QUIET: Duration = Duration::from_secs(3);

/// What the sampler watches for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// The memory that the box may use, bytes.
    pub memory_limit: u64,
    /// Shares of it.
    pub high: Fraction,
    pub eviction: Fraction,
    pub reclaim: Fraction,
    /// Above it nothing starts.
    pub cpu: Option<Cores>,
}

impl Thresholds {
    fn watermarks(&self) -> Watermarks {
        Watermarks::new(self.memory_limit, self.high.get(), self.eviction.get())
    }
}

/// Owns the thread; dropping it ends and joins the thread.
pub struct Sampler {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Watch {
    core: Arc<Core>,
    engines: Engines,
    container: Arc<Container>,
    thresholds: Thresholds,
    watermarks: Watermarks,
    forecast: Forecast,
    throttle: Throttle,
    memory_gate: Watched,
    cpu_gate: Watched,
    cpu: CpuWindow,
    cpu_read: Option<Instant>,
    stall: Option<(Instant, Duration)>,
    stalled: bool,
    reclaimed: Option<Instant>,
    limit_read: Instant,
    /// When guests were last seen to hold memory; `None` after what they left was given back.
    busy: Option<Instant>,
}

impl Sampler {
    /// Looks once, then starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        core: Arc<Core>,
        engines: Engines,
        container: Arc<Container>,
        thresholds: Thresholds,
    ) -> io::Result<Sampler> {
        let watermarks = thresholds.watermarks();
        core.metrics.memory_limit_bytes.set(gauge(watermarks.limit));
        let throttle = Throttle::new(core.admission.snapshot().capacity.units, watermarks.high >> 20, Instant::now());
        let mut watch = Watch {
            core,
            engines,
            container,
            thresholds,
            watermarks,
            forecast: Forecast::new(watermarks),
            throttle,
            memory_gate: Watched::new(Gate::Memory),
            cpu_gate: Watched::new(Gate::Cpu),
            cpu: CpuWindow::new(CPU_WINDOW),
            cpu_read: None,
            stall: None,
            stalled: false,
            reclaimed: None,
            limit_read: Instant::now(),
            busy: None,
        };
        let mut pause = watch.look(Instant::now());
        let ended = Arc::new(AtomicBool::new(false));
        let thread = {
            let ended = ended.clone();
            thread::Builder::new().name("sampler".into()).spawn(move || {
                while !ended.load(Ordering::Acquire) {
                    thread::park_timeout(pause);
                    pause = watch.look(Instant::now());
                }
            })?
        };
        Ok(Sampler { ended, thread: Some(thread) })
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the sampler was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Watch {
    /// Looks and acts; gives the time until the next look.
    fn look(&mut self, now: Instant) -> Duration {
        self.look_at_limit(now);
        self.look_at_cpu(now);
        self.look_at_stalls(now);
        let memory = &self.core.memory;
        let before = memory.used();
        let Some(MemoryUse { working_set, firm }) = self.container.memory() else {
            // Without readings guests are bounded by their requests alone. What was read before means nothing now.
            memory.set_ceiling(i64::MAX);
            self.memory_gate
                .set(&self.core.admission, now, true, || "the kernel does not tell the memory in use any more".into());
            return SELDOM;
        };
        let used = before.max(memory.used());
        self.forecast.read(now, firm, used);
        let connections = u64::try_from(self.core.metrics.connections.get()).unwrap_or(0);
        let reserved = self.core.budgets.free(connections) + self.core.admin_budgets.total();
        memory.set_ceiling(self.forecast.ceiling(reserved));
        self.core.metrics.working_set_bytes.set(gauge(working_set));
        self.core.metrics.guest_memory_bytes.set(gauge(used));

        let first = memory.first();
        let expected = self.forecast.expected(AHEAD);
        let strained = expected > self.watermarks.high || first.is_some() || self.stalled;
        let relaxed = expected < self.watermarks.low && first.is_none() && !self.stalled;
        let open = if self.memory_gate.open { !strained } else { relaxed };
        self.memory_gate.set(&self.core.admission, now, open, || {
            format!(
                "{} MiB of {} MiB in use, guests {} MiB{}{}",
                firm >> 20,
                self.watermarks.limit >> 20,
                used >> 20,
                if first.is_some() { ", growth waits" } else { "" },
                if self.stalled { ", stalls" } else { "" }
            )
        });
        if let Some(units) = self.throttle.rise(now, !open) {
            self.core.admission.set_ceiling(units);
        }
        if strained {
            self.evict(now, expected);
        }
        // It takes its time, so it comes last.
        if strained || working_set > self.thresholds.reclaim.of(self.watermarks.limit) {
            self.reclaim(now, working_set);
        }
        self.core.instances.expire(now);
        self.look_for_quiet(now, used > 0);
        let close = working_set.max(self.core.memory.committed()) > self.watermarks.limit / 2;
        if strained || close { OFTEN } else { SELDOM }
    }

    fn evict(&mut self, now: Instant, expected: u64) {
        // Instances that only wait go before any that works.
        let wanted = expected
            .saturating_sub(self.watermarks.high)
            .max(self.core.memory.first().map_or(0, |first| first.missing));
        if wanted > 0 && self.core.instances.give_back(wanted) >= wanted {
            return;
        }
        let running = self.core.workers.running();
        let needs = Need::of(expected, &self.watermarks, self.core.memory.first(), now);
        let met = needs.map(|need| (need, need.victims(&running))).find(|(_, victims)| !victims.is_empty());
        let Some((need, victims)) = met else { return };
        for victim in &victims {
            // Soon it has nothing any more.
            let held = victim.used();
            // It may have been ended for another reason meanwhile.
            if !victim.cancel.cancel(CancelReason::Evicted) {
                continue;
            }
            self.core.metrics.evicted.inc();
            let (why, bytes) = match need {
                Need::Working { bytes } => ("working set near the limit", bytes),
                Need::Growth { bytes, .. } => ("an earlier invocation waits for memory", bytes),
            };
            tracing::warn!(
                id = %victim.id, held_mib = held >> 20, needed_mib = bytes >> 20, "evicted: {why}"
            );
        }
        // Busy ones see it at once.
        self.engines.increment_epoch();
        // Who wants more than there is would be evicted from an empty box, too.
        if !matches!(need, Need::Growth { impossible: true, .. }) {
            let units = self.core.admission.snapshot().in_flight_units;
            self.core.admission.set_ceiling(self.throttle.lower(units));
        }
    }

    /// Gives back what harms nobody: free memory of the allocator, and compiled code that has not been used for long.
    fn reclaim(&mut self, now: Instant, working_set: u64) {
        if self.reclaimed.is_some_and(|last| now.duration_since(last) < RECLAIM_PERIOD) {
            return;
        }
        self.reclaimed = Some(now);
        let trimmed = self.core.store.trim();
        reclaim::collect();
        let after = self.container.working_set().unwrap_or(working_set);
        tracing::debug!(
            functions = trimmed,
            before_mib = working_set >> 20,
            after_mib = after >> 20,
            "gave memory back"
        );
    }

    fn look_for_quiet(&mut self, now: Instant, busy: bool) {
        if busy {
            self.busy = Some(now);
        } else if self.busy.is_some_and(|last| now.duration_since(last) >= QUIET) {
            self.busy = None;
            reclaim::collect();
        }
    }

    /// A container may be given more memory while it runs, or less.
    fn look_at_limit(&mut self, now: Instant) {
        if now.duration_since(self.limit_read) < LIMIT_PERIOD {
            return;
        }
        self.limit_read = now;
        let Some((admitted, capacity)) = self.core.sizing.follow(self.container.available_memory()) else { return };
        let before = std::mem::replace(&mut self.thresholds.memory_limit, admitted.memory_limit);
        self.watermarks = self.thresholds.watermarks();
        self.forecast.set_watermarks(self.watermarks);
        self.throttle.resize(capacity.units, self.watermarks.high >> 20);
        self.core.metrics.memory_limit_bytes.set(gauge(admitted.memory_limit));
        self.core.admission.set_capacity(capacity);
        tracing::info!(
            memory_limit_mib = admitted.memory_limit >> 20,
            before_mib = before >> 20,
            capacity_mib = capacity.units,
            default_memory_request = %admitted.default_request,
            "the memory limit has changed"
        );
    }

    fn look_at_cpu(&mut self, now: Instant) {
        if self.cpu_read.is_some_and(|last| now.duration_since(last) < CPU_PERIOD) {
            return;
        }
        self.cpu_read = Some(now);
        let Some(used) = self.container.cpu_time() else {
            self.cpu_gate
                .set(&self.core.admission, now, true, || "the kernel does not tell the CPU time used any more".into());
            return;
        };
        self.cpu.read(now, used);
        let cores = self.cpu.cores();
        self.core.metrics.cpu_cores_in_use.set(cores);
        if let Some(threshold) = self.thresholds.cpu {
            let open = cores <= threshold.get();
            self.cpu_gate.set(&self.core.admission, now, open, || format!("{cores:.2} of {threshold} cores in use"));
        }
    }

    fn look_at_stalls(&mut self, now: Instant) {
        let Some(total) = self.container.memory_stall() else {
            self.stalled = false;
            return;
        };
        let (then, before) = *self.stall.get_or_insert((now, total));
        let elapsed = now.duration_since(then);
        if elapsed >= STALL_WINDOW {
            self.stalled = total.saturating_sub(before) > elapsed / 5;
            self.stall = Some((now, total));
        }
    }
}
