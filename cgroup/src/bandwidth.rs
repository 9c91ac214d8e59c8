//! How much CPU time a cgroup may use in each period (kernel: `sched-bwc`, cgroup v2 `cpu.max`).

use std::time::Duration;

/// The kernel's bounds: periods of 1 ms to 1 s, quotas of at least 1 ms.
pub const LEAST_PERIOD: Duration = Duration::from_millis(1);
pub const LONGEST_PERIOD: Duration = Duration::from_secs(1);
const LEAST_QUOTA_US: u64 = 1000;
/// A leaf has one thread, and one thread uses one core at most: at this quota and above there is nothing to limit.
const ONE_CORE: u64 = 1000;

/// A quota in each period, microseconds; `None` limits nothing (the container's own limit holds all the same).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    pub quota_us: Option<u64>,
    pub period_us: u64,
}

impl Bandwidth {
    /// What enforces a quota of `millicores`: in periods of `period`, or in longer ones, where a period's share would be below the kernel's
    /// least. 0 counts as 1, which is the least that the kernel can enforce.
    #[inline]
    pub fn of(millicores: u32, period: Duration) -> Bandwidth {
        let millicores = u64::from(millicores.max(1));
        let microseconds = |period: Duration| u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
        let wanted = microseconds(period.clamp(LEAST_PERIOD, LONGEST_PERIOD));
        let period_us = wanted.max((LEAST_QUOTA_US * ONE_CORE).div_ceil(millicores));
        let quota_us = (millicores * period_us / ONE_CORE).max(LEAST_QUOTA_US);
        Bandwidth { quota_us: Some(quota_us).filter(|_| millicores < ONE_CORE), period_us }
    }

    /// No quota.
    #[inline]
    pub fn lifted(self) -> Bandwidth {
        Bandwidth { quota_us: None, ..self }
    }

    /// CPU time in a period.
    #[inline]
    pub fn budget(&self) -> Duration {
        Duration::from_micros(self.quota_us.unwrap_or(u64::MAX))
    }

    #[inline]
    pub fn period(&self) -> Duration {
        Duration::from_micros(self.period_us)
    }

    /// `cpu.max`: `$MAX $PERIOD`.
    pub fn v2(&self) -> String {
        match self.quota_us {
            Some(quota) => format!("{quota} {}", self.period_us),
            None => format!("max {}", self.period_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(millicores: u32, period_ms: u64) -> Bandwidth {
        Bandwidth::of(millicores, Duration::from_millis(period_ms))
    }

    #[test]
    fn usual_quotas() {
        assert_eq!(of(500, 100), Bandwidth { quota_us: Some(50_000), period_us: 100_000 });
        assert_eq!(of(10, 100), Bandwidth { quota_us: Some(1000), period_us: 100_000 });
        assert_eq!(of(1000, 100), Bandwidth { quota_us: None, period_us: 100_000 });
        assert_eq!(of(1, 100), Bandwidth { quota_us: Some(1000), period_us: 1_000_000 });
        assert_eq!(of(100, 1), Bandwidth { quota_us: Some(1000), period_us: 10_000 });
        assert_eq!(of(0, 100), of(1, 100));
        assert_eq!(of(500, 100).v2(), "50000 100000");
        assert_eq!(of(2000, 100).v2(), "max 100000");
    }

    proptest! {
        #[test]
        fn within_the_kernels_bounds_and_never_more_than_asked(millicores in 1_u32..1000, period_ms in 0_u64..2000) {
            let bandwidth = of(millicores, period_ms);
            let quota = bandwidth.quota_us.unwrap();
            prop_assert!((1000..=1_000_000).contains(&bandwidth.period_us));
            prop_assert!(quota >= 1000);
            prop_assert!(quota * 1000 <= u64::from(millicores) * bandwidth.period_us);
            // At most 0.1 % less.
            prop_assert!((quota + 1) * 1000 >= u64::from(millicores) * bandwidth.period_us);
        }
    }
}
