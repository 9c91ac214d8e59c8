//! Traces for a collector of OpenTelemetry. The variables are OpenTelemetry's.

use std::{ffi::OsString, path::PathBuf};

use super::{ConfigError, settings::settings};
use crate::{
    limits::Fraction,
    traces::{
        ExporterSettings,
        endpoint::{Endpoint, OtlpHeaders, ResourceAttributes},
        sampler::{Sampler, SamplerKind},
    },
};

settings! {
    /// Traces for a collector of OpenTelemetry.
    pub struct TraceSettings {
        /// URL of a collector that takes OTLP by HTTP, http://HOST:4318; traces go to /v1/traces below it [default: none]
        #[arg(long, value_name = "URL")]
        otlp_endpoint: Endpoint = ["OTEL_EXPORTER_OTLP_ENDPOINT"],
        /// The whole URL for traces, instead [default: none]
        #[arg(long, value_name = "URL")]
        otlp_traces_endpoint: Endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
        /// Headers for the collector, NAME=VALUE,NAME=VALUE, values percent-encoded; secrets belong into the variable or the file [default: none]
        #[arg(long, value_name = "HEADERS")]
        otlp_headers: OtlpHeaders = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
        /// Certificates (PEM) of those who may vouch for a collector of https [default: the system's]
        #[arg(long, value_name = "FILE")]
        otlp_ca: PathBuf = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
        /// service.name of this box in its spans [default: wasmbox]
        #[arg(long, value_name = "NAME")]
        otlp_service_name: String = ["OTEL_SERVICE_NAME"],
        /// Further attributes of this box in its spans, NAME=VALUE,NAME=VALUE [default: none]
        #[arg(long, value_name = "ATTRIBUTES")]
        otlp_resource_attributes: ResourceAttributes = ["OTEL_RESOURCE_ATTRIBUTES"],
        /// Of which invocations spans are recorded [default: parentbased_always_on]
        #[arg(long, value_name = "SAMPLER", ignore_case = true)]
        otlp_sampler: SamplerKind = ["OTEL_TRACES_SAMPLER"],
        /// The share of traces that a sampler with `traceidratio` in its name records, 0 to 1 [default: 1]
        #[arg(long, value_name = "FRACTION")]
        otlp_sampler_arg: Fraction = ["OTEL_TRACES_SAMPLER_ARG"],
    }
}

/// Settings of which OpenTelemetry wants bad variables to be warned about, and ignored.
pub(super) const IGNORED_IF_BAD: [&str; 2] = ["otlp_sampler", "otlp_sampler_arg"];

/// Whether variables say that there are to be no traces.
pub(super) fn are_off(get: impl Fn(&str) -> Option<OsString>) -> bool {
    let is =
        |name: &str, value: &str| get(name).is_some_and(|is| is.to_string_lossy().trim().eq_ignore_ascii_case(value));
    is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none")
}

/// By which the operator names who vouches for a collector.
pub const CA_SETTING: &str = "--otlp-ca (OTEL_EXPORTER_OTLP_CERTIFICATE)";

impl TraceSettings {
    /// Whether they say where traces go.
    pub(super) fn have_endpoint(&self) -> bool {
        self.otlp_endpoint.is_some() || self.otlp_traces_endpoint.is_some()
    }

    #[must_use]
    pub(super) fn without_endpoint(self) -> Self {
        TraceSettings { otlp_endpoint: None, otlp_traces_endpoint: None, ..self }
    }

    /// `None`: there are no traces.
    pub(super) fn resolve(self) -> Result<Option<ExporterSettings>, ConfigError> {
        let endpoint = match (self.otlp_traces_endpoint, self.otlp_endpoint) {
            (Some(whole), _) => whole,
            (None, Some(endpoint)) if endpoint.has_query() => {
                return Err(ConfigError::Value {
                    name: "--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT)",
                    value: endpoint.to_string(),
                    expected: "no query, since /v1/traces comes behind it; --otlp-traces-endpoint (OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) takes a whole URL".into(),
                });
            }
            (None, Some(endpoint)) => endpoint.of_traces(),
            (None, None) => return Ok(None),
        };
        Ok(Some(ExporterSettings {
            endpoint,
            headers: self.otlp_headers.unwrap_or_default(),
            attributes: self.otlp_resource_attributes.unwrap_or_default(),
            service_name: self.otlp_service_name,
            sampler: Sampler {
                kind: self.otlp_sampler.unwrap_or(SamplerKind::ParentBasedAlwaysOn),
                ratio: self.otlp_sampler_arg.unwrap_or(Fraction::percent(100)),
            },
            ca: self.otlp_ca,
        }))
    }
}
