//! Readiness, and reports to the queue-proxy.

use std::time::Duration;

use super::{
    ConfigError,
    settings::{port_number, settings, whole},
    within,
};
use crate::{
    limits::Fraction,
    readiness::ReadinessSettings,
    reporter::{QueueProxyHost, ReporterSettings},
};

settings! {
    /// Readiness, and reports to the queue-proxy.
    pub struct ReportSettings {
        /// Probes whose memory utilization is averaged, 1 to 1000 [default: 5]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        readiness_window: usize = ["READINESS_WINDOW"],
        /// Working set over memory limit above which the box is not ready, 0 to 1 [default: 0.9]
        #[arg(long, value_name = "FRACTION")]
        readiness_utilization_threshold: Fraction = ["READINESS_UTILIZATION_TRESHOLD", "READINESS_UTILIZATION_THRESHOLD"],
        /// Percent of the probes, drawn at random, that stay ready above that threshold: some, where boxes must not all leave at once [default: 0]
        #[arg(long, value_name = "PERCENT")]
        readiness_rand_threshold: u8 = ["READINESS_RAND_TRESHOLD", "READINESS_RAND_THRESHOLD"],
        /// Address of the queue-proxy that wants to know the CPU utilization; `none` reports to nobody [default: 127.0.0.1]
        #[arg(long, value_name = "ADDRESS")]
        qp_host: QueueProxyHost = ["QP_HOST"],
        /// Its port [default: 9096]
        #[arg(long, value_name = "PORT", value_parser = port_number)]
        qp_port: u16 = ["QP_PORT"],
        /// Time between two reports to it, in ms, 10 to 60000 [default: 50]
        #[arg(long, value_name = "MS", value_parser = whole::<u64>)]
        reporting_period_ms: u64 = ["REPORTING_PERIOD_MS"],
        /// Reporting periods over which the CPU utilization is averaged, 1 to 1000 [default: 5]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<usize>)]
        metrics_collection_window: usize = ["METRICS_COLLECTION_WINDOW"],
        /// Wait between tries to reach it, in seconds, 1 to 60 [default: 2]
        #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>)]
        retry_delay_sec: u64 = ["RETRY_DELAY_SEC"],
        /// Tries with that wait, after which it doubles each time, up to a minute; there is no last try [default: 5]
        #[arg(long, value_name = "NUMBER", value_parser = whole::<u32>)]
        max_retries: u32 = ["MAX_RETRIES"],
    }
}

impl ReportSettings {
    pub(super) fn readiness(&self) -> Result<ReadinessSettings, ConfigError> {
        let readiness = ReadinessSettings {
            window: self.readiness_window.unwrap_or(ReadinessSettings::WINDOW),
            threshold: self.readiness_utilization_threshold.unwrap_or(ReadinessSettings::THRESHOLD),
            share: self.readiness_rand_threshold.unwrap_or(ReadinessSettings::SHARE),
        };
        within("--readiness-window", readiness.window as u64, 1, 1000)?;
        within("--readiness-rand-threshold", u64::from(readiness.share), 0, 100)?;
        Ok(readiness)
    }

    /// `None`: to nobody.
    pub(super) fn reporter(self) -> Result<Option<ReporterSettings>, ConfigError> {
        let period = self.reporting_period_ms.unwrap_or(50);
        within("--reporting-period-ms", period, 10, 60_000)?;
        let window = self.metrics_collection_window.unwrap_or(5);
        within("--metrics-collection-window", window as u64, 1, 1000)?;
        let retry_delay = self.retry_delay_sec.unwrap_or(2);
        within("--retry-delay-sec", retry_delay, 1, 60)?;
        Ok(match self.qp_host.unwrap_or_default() {
            QueueProxyHost::None => None,
            QueueProxyHost::Named(host) => Some(ReporterSettings {
                host,
                port: self.qp_port.unwrap_or(9096),
                period: Duration::from_millis(period),
                window,
                retry_delay: Duration::from_secs(retry_delay),
                max_retries: self.max_retries.unwrap_or(5),
            }),
        })
    }
}
