//! What a call took, for people: from the headers of its answer, or from the log of a box of one's own, which knows more.

use std::{fmt::Write, time::Duration};

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{
    log_line::{Call, plain},
    palette::Palette,
    request::Limit,
};
use crate::{store::listing::ListedLimits, terminal::status_screen::bytes};

/// Microseconds as milliseconds.
pub fn milliseconds(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}

/// Bytes, with a unit.
pub fn memory(amount: u64) -> String {
    bytes(amount)
}

/// A call that is over. What is not known is `None`.
#[derive(Debug, Default)]
pub struct Summary {
    /// `None`: there was no answer.
    pub status: Option<StatusCode>,
    /// From the request's first byte to the answer's last, at the client.
    pub elapsed: Duration,
    pub id: Option<String>,
    /// Waited for admission, for the code, for the CPU limit; and run. Microseconds.
    pub queue: Option<u64>,
    pub compile: Option<u64>,
    pub cgroup: Option<u64>,
    pub exec: Option<u64>,
    pub cpu: Option<u64>,
    pub throttled: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// The limits of this call.
    pub limits: Vec<(&'static str, String)>,
    /// The error of the box, if it is one.
    pub problem: Option<Problem>,
    /// Why the answer ended early, as the client sees it.
    pub broken_off: Option<String>,
    /// Why the function failed, as the log has it.
    pub failure: Option<String>,
    pub stderr: Stderr,
}

/// What the function wrote to standard error.
#[derive(Debug, Default)]
pub enum Stderr {
    /// The box's log has it, and nobody asked.
    #[default]
    Logged,
    /// The box's log has it, and does not tell, for this reason.
    Unknown(String),
    Lines(Vec<String>),
}

/// What an error's document says.
#[derive(Debug, Deserialize)]
pub struct Problem {
    pub code: String,
    pub title: String,
    #[serde(default)]
    pub detail: String,
}

impl Summary {
    pub fn new(status: StatusCode, headers: &HeaderMap) -> Summary {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        // A component may have set one, too: the box's own is the last.
        let timing = headers.get_all("server-timing").iter().next_back().and_then(|value| value.to_str().ok());
        let part = |name: &str| micros(timing?, name);
        Summary {
            status: Some(status),
            id: text("wasmbox-invocation-id").map(str::to_owned),
            queue: part("queue"),
            compile: part("compile"),
            cgroup: part("cgroup"),
            exec: part("exec"),
            cpu: number("wasmbox-cpu-time-us"),
            throttled: number("wasmbox-throttled-time-us"),
            memory_bytes: number("wasmbox-memory-peak-bytes"),
            ..Summary::default()
        }
    }

    /// Adds what the log has on it: also of an answer that had started before the function ended.
    pub fn logged(&mut self, call: &Call) {
        self.queue = Some(call.queue_us);
        self.compile = Some(call.compile_us);
        self.exec = Some(call.exec_us);
        self.cpu = Some(call.cpu_us);
        self.throttled = Some(call.throttled_us);
        self.memory_bytes = Some(call.memory_bytes);
        self.failure.clone_from(&call.failure);
    }

    /// What was asked for counts, then what the function has without being asked.
    pub fn limited(&mut self, asked: &[Limit], usual: Option<ListedLimits>) {
        let asked_for = |name| asked.iter().rfind(|limit| limit.name == name).map(|limit| limit.value.clone());
        let (cpu, memory, timeout) = usual.map_or((None, None, None), |usual| {
            (Some(usual.cpu_quota), Some(usual.memory_request), Some(usual.invocation_timeout))
        });
        let all = [("cpu-quota", cpu), ("memory-request", memory), ("invocation-timeout", timeout)];
        self.limits = all.into_iter().filter_map(|(name, usual)| Some((name, asked_for(name).or(usual)?))).collect();
    }

    /// For a terminal, line by line.
    pub fn shown(&self, palette: Palette) -> String {
        let status = match self.status {
            Some(status) => palette.status(status.as_u16(), status),
            None => palette.bad("no answer"),
        };
        let elapsed = milliseconds(u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX));
        let mut text = match &self.broken_off {
            // A status alone would look like a success.
            Some(reason) => {
                let why = self.failure.as_deref().unwrap_or("the box's log says why");
                let failed = palette.bad("the answer was broken off");
                format!("{failed}: {}: {}\n{status}, broken off after {elapsed}\n", plain(reason), plain(why))
            }
            None => format!("{status} in {elapsed}\n"),
        };
        // Writing to a string does not fail.
        let mut line = |name: &str, value: String| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {} {value}", palette.faint(format_args!("{name:<8}")));
            }
        };
        let join = |parts: Vec<(&str, Option<String>)>| {
            let known = parts.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name}{value}")));
            known.collect::<Vec<_>>().join(", ")
        };
        let ms = |micros: Option<u64>| micros.map(milliseconds);
        line(
            "time",
            join(vec![
                ("run ", ms(self.exec)),
                ("queue ", ms(self.queue)),
                ("compile ", ms(self.compile)),
                ("cgroup ", ms(self.cgroup)),
            ]),
        );
        line(
            "cpu",
            join(vec![
                ("", ms(self.cpu)),
                ("held back by the quota for ", ms(self.throttled.filter(|micros| *micros > 0))),
            ]),
        );
        line("memory", join(vec![("", self.memory_bytes.map(memory))]));
        line(
            "limits",
            self.limits.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", "),
        );
        line("id", self.id.clone().unwrap_or_default());
        match &self.stderr {
            Stderr::Lines(lines) => lines.iter().for_each(|said| line("stderr", palette.guest(plain(said)))),
            Stderr::Unknown(reason) => line("stderr", format!("in the box's log, under this id: {}", plain(reason))),
            Stderr::Logged => {
                let place = "in the box's log, under this id; --token-file shows it";
                line("stderr", self.id.iter().map(|_| place.to_owned()).collect());
            }
        }
        if let Some(Problem { code, title, detail }) = &self.problem {
            let _ = writeln!(text, "{}: {}", palette.bad(title), plain(detail));
            if code == "module-not-found" {
                let _ = writeln!(text, "where `wasmbox dev` serves, its terminal says whether it is being built");
            }
            let _ = writeln!(text, "`wasmbox explain {}` says more", plain(code));
        }
        text
    }
}

/// Of `queue;dur=0.001, compile;desc=baseline;dur=1.651`.
fn micros(timing: &str, name: &str) -> Option<u64> {
    let mut entries = timing.split(',').map(|entry| entry.split(';').map(str::trim));
    let mut parameters = entries.find_map(|mut entry| (entry.next() == Some(name)).then_some(entry))?;
    let entry = parameters.find_map(|parameter| parameter.strip_prefix("dur="))?;
    let duration = entry.parse::<f64>().ok().filter(|milliseconds| *milliseconds >= 0.0)?;
    Duration::try_from_secs_f64(duration / 1000.0).ok()?.as_micros().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("server-timing", "queue;dur=9"),
            ("server-timing", "queue;dur=0.101, compile;desc=baseline;dur=1.6, exec;dur=12.36"),
            ("wasmbox-cpu-time-us", "349"),
            ("wasmbox-memory-peak-bytes", "65536"),
            ("wasmbox-invocation-id", "07"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let mut summary = Summary::new(StatusCode::OK, &headers);
        summary.elapsed = Duration::from_micros(14_250);
        let usual =
            ListedLimits { cpu_quota: "500m".into(), memory_request: "200Mi".into(), invocation_timeout: "60s".into() };
        summary.limited(&["memory-request=64Mi".parse().unwrap()], Some(usual));
        let palette = Palette::new(clap::ColorChoice::Never, &std::io::stderr());
        assert_eq!(
            summary.shown(palette),
            "200 OK in 14.2 ms\n  time     run 12.3 ms, queue 0.1 ms, compile 1.6 ms\n  cpu      0.3 ms\n  memory   64.0 KiB\n  \
             limits   cpu-quota 500m, memory-request 64Mi, invocation-timeout 60s\n  id       07\n  \
             stderr   in the box's log, under this id; --token-file shows it\n"
        );
        assert_eq!(Summary::new(StatusCode::OK, &HeaderMap::new()).shown(palette), "200 OK in 0.0 ms\n");
    }
}
