//! Readiness: whether further requests should come to this box now, by how full its memory is.
//!
//! Each probe looks at the container's working set; the average of the last probes decides. Above the threshold a share of the probes,
//! drawn at random, is still answered with ready, so that boxes that fill up together do not all leave at once. That is what the
//! original WasmBox means; its own average was the last value divided by the count, and its draw was compared with the wrong threshold.
//!
//! It does not refuse any request: [`crate::admission`] does.

use std::{
    collections::VecDeque,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{container::Container, limits::Fraction, sizing::Sizing};

/// Probes that come closer together share a sample: a flood of them must not push the past out of the window.
const BETWEEN_SAMPLES: Duration = Duration::from_secs(1);
/// After so long without a probe the samples say nothing of now.
const STALE: Duration = Duration::from_secs(60);

/// When a box is ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadinessSettings {
    /// How many samples are averaged, at least 1.
    pub window: usize,
    /// The utilization above which it is not ready.
    pub threshold: Fraction,
    /// Percent of the probes that are answered with ready even so.
    pub share: u8,
}

impl ReadinessSettings {
    pub const WINDOW: usize = 5;
    /// Above all watermarks of admission: it is for what admission could not prevent.
    pub const THRESHOLD: Fraction = Fraction::percent(90);
    /// None: a rule that can be relied on. With many boxes behind one service, some.
    pub const SHARE: u8 = 0;
}

/// Takes part in every probe.
pub struct Readiness {
    settings: ReadinessSettings,
    container: Arc<Container>,
    /// What is 1 of utilization is its memory limit.
    sizing: Arc<Sizing>,
    window: Mutex<Window>,
    random: RandomState,
    draws: AtomicU64,
}

/// Why a box is ready or not; its text is the body of `/ready`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub ready: bool,
    pub draining: bool,
    /// Working set over memory limit, averaged; `None` before the first probe, or where the kernel does not tell.
    pub utilization: Option<f64>,
    /// How many probes the average is of, and the most that it is of.
    pub samples: usize,
    pub window: usize,
    pub threshold: f64,
    /// Percent of probes that stay ready above the threshold.
    pub share: u8,
}

impl Readiness {
    pub fn new(settings: ReadinessSettings, container: Arc<Container>, sizing: Arc<Sizing>) -> Readiness {
        Readiness {
            settings,
            container,
            sizing,
            window: Mutex::new(Window::new(settings.window)),
            random: RandomState::new(),
            draws: AtomicU64::new(0),
        }
    }

    /// Answers a probe: samples, unless one was just taken, and draws.
    pub fn probe(&self, draining: bool) -> Report {
        let average = {
            let mut window = self.window();
            window.sample(Instant::now(), || self.utilization());
            window.average()
        };
        let stays = average.is_some_and(|average| self.is_above(average)) && self.draw() < self.settings.share;
        self.report(draining, stays)
    }

    /// The state as the last probes left it; no probe, and no draw: above the threshold it is not ready.
    pub fn explain(&self, draining: bool) -> Report {
        self.report(draining, false)
    }

    fn report(&self, draining: bool, stays: bool) -> Report {
        let window = self.window();
        let utilization = window.average();
        Report {
            ready: !draining && (stays || !utilization.is_some_and(|average| self.is_above(average))),
            draining,
            utilization,
            samples: window.samples.len(),
            window: window.size,
            threshold: self.settings.threshold.get(),
            share: self.settings.share,
        }
    }

    fn is_above(&self, average: f64) -> bool {
        average > self.settings.threshold.get()
    }

    fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn utilization(&self) -> Option<f64> {
        Some(self.container.working_set()? as f64 / self.sizing.now().memory_limit.max(1) as f64)
    }

    /// 0 to 99. Nobody gains by guessing it: the standard library's keyed hash of a count is random enough.
    fn draw(&self) -> u8 {
        let hash = self.random.hash_one(self.draws.fetch_add(1, Ordering::Relaxed));
        u8::try_from(hash % 100).expect("less than a hundred")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.draining, self.ready) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "unready",
        };
        let utilization = self.utilization.map_or("unknown".into(), |utilization| format!("{utilization:.3}"));
        writeln!(f, "{word}")?;
        writeln!(f, "memory-utilization: {utilization}")?;
        writeln!(f, "probes-averaged: {} of {}", self.samples, self.window)?;
        writeln!(f, "threshold: {}", self.threshold)?;
        writeln!(f, "ready-above-threshold: {} %", self.share)?;
        writeln!(f, "draining: {}", if self.draining { "yes" } else { "no" })
    }
}

/// The last samples.
struct Window {
    size: usize,
    samples: VecDeque<f64>,
    sampled: Option<Instant>,
}

impl Window {
    fn new(size: usize) -> Window {
        let size = size.max(1);
        Window { size, samples: VecDeque::with_capacity(size), sampled: None }
    }

    /// Takes what `read` gives, unless the last sample is too fresh.
    fn sample(&mut self, now: Instant, read: impl FnOnce() -> Option<f64>) {
        if self.sampled.is_some_and(|sampled| now.saturating_duration_since(sampled) < BETWEEN_SAMPLES) {
            return;
        }
        if self.sampled.is_some_and(|sampled| now.saturating_duration_since(sampled) > STALE) {
            self.samples.clear();
        }
        self.sampled = Some(now);
        let Some(sample) = read() else {
            self.samples.clear();
            return;
        };
        if self.samples.len() == self.size {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    fn average(&self) -> Option<f64> {
        (!self.samples.is_empty()).then(|| self.samples.iter().sum::<f64>() / self.samples.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Settings};

    fn window_of(size: usize, samples: &[f64]) -> Window {
        let mut window = Window::new(size);
        let mut now = Instant::now();
        for sample in samples {
            window.sample(now, || Some(*sample));
            now += BETWEEN_SAMPLES;
        }
        window
    }

    proptest! {
        #[test]
        fn the_average_is_that_of_the_last_samples(
            size in 1_usize..20,
            samples in prop::collection::vec(0.0..2.0_f64, 0..60),
        ) {
            let last = &samples[samples.len().saturating_sub(size)..];
            let average = window_of(size, &samples).average();
            prop_assert_eq!(average.is_none(), last.is_empty());
            if let Some(average) = average {
                prop_assert!((average - last.iter().sum::<f64>() / last.len() as f64).abs() < 1e-12);
                let (least, most) = last.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
                prop_assert!((least - 1e-12..=most + 1e-12).contains(&average), "{least} {average} {most}");
            }
        }
    }

    /// The original divided the last value by the count: 0.2 here.
    #[test]
    fn a_full_box_is_above_its_threshold() {
        assert_eq!(window_of(5, &[1.0; 5]).average(), Some(1.0));
    }

    #[test]
    fn a_flood_of_probes_does_not_rush_the_window() {
        let mut window = window_of(5, &[0.1, 0.2, 0.3, 0.4]);
        let now = window.sampled.expect("it was sampled") + BETWEEN_SAMPLES;
        for _ in 0..1000 {
            window.sample(now, || Some(0.5));
        }
        window.sample(now + BETWEEN_SAMPLES / 2, || Some(9.0));
        assert_eq!(window.samples, [0.1, 0.2, 0.3, 0.4, 0.5]);
        window.sample(now + BETWEEN_SAMPLES, || None);
        assert_eq!(window.average(), None, "what was read before says nothing of now");
    }

    #[test]
    fn a_share_stays_ready_above_the_threshold_and_draining_wins() {
        let container = Arc::new(Container::open());
        let probe = |threshold, share, draining| {
            let settings = ReadinessSettings { window: 5, threshold, share };
            // One byte is the limit: any use is above any threshold.
            let sizing = Sizing::new(Config::new(Settings::default()).unwrap().admitted, 1, 1);
            let readiness = Readiness::new(settings, container.clone(), Arc::new(sizing));
            assert_eq!(readiness.explain(false).utilization, None, "nobody has probed");
            (0..1000).filter(|_| readiness.probe(draining).ready).count()
        };
        let threshold = ReadinessSettings::THRESHOLD;
        assert_eq!(probe(threshold, 0, false), 0);
        assert_eq!(probe(threshold, 100, false), 1000);
        assert_eq!(probe(threshold, 100, true), 0);
        // 15 standard deviations on either side.
        let some = probe(threshold, 40, false);
        assert!((170..630).contains(&some), "{some} of 1000");
    }

    #[test]
    fn the_report_begins_with_a_word() {
        let report = Report {
            ready: false,
            draining: false,
            utilization: Some(0.93456),
            samples: 3,
            window: 5,
            threshold: 0.9,
            share: 40,
        };
        assert_eq!(
            report.to_string(),
            "unready\nmemory-utilization: 0.935\nprobes-averaged: 3 of 5\nthreshold: 0.9\nready-above-threshold: 40 %\ndraining: no\n"
        );
        assert!(Report { ready: true, utilization: None, ..report.clone() }.to_string().starts_with("ready\n"));
        assert!(Report { draining: true, ..report }.to_string().starts_with("draining\n"));
    }
}
