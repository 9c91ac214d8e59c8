//! What the store has, for operators: files with their state, and what is being compiled.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize, Serializer};

use super::{
    LoadError, ModuleStore, Waiting,
    cache::State,
    file::{FunctionsDir, stem},
    function::Function,
    name::ModuleName,
};
use crate::limits::Limits;

/// Files that are being loaded, at most so many of them.
const MOST_LOADING: usize = 20;

/// One line of [`ModuleStore::listing`].
#[derive(Debug, Serialize)]
pub struct Listed {
    pub file: String,
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<&'static str>,
    pub code_bytes: usize,
    /// Of requests that name none.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "written")]
    pub limits: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The limits of requests that name none, written as they are in settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedLimits {
    pub cpu_quota: String,
    pub memory_request: String,
    pub invocation_timeout: String,
}

impl From<Limits> for ListedLimits {
    fn from(limits: Limits) -> ListedLimits {
        ListedLimits {
            cpu_quota: limits.cpu_quota.to_string(),
            memory_request: limits.memory.to_string(),
            invocation_timeout: limits.timeout.to_string(),
        }
    }
}

fn written<S: Serializer>(limits: &Option<Limits>, serializer: S) -> Result<S::Ok, S::Error> {
    limits.map(ListedLimits::from).serialize(serializer)
}

/// What is being compiled, and what waits for that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compiling {
    /// Modules that are being compiled.
    pub running: u64,
    /// The most at once.
    pub places: u64,
    /// Those that wait for a place, although somebody waits for them.
    pub waiting: u64,
    /// Functions with baseline code that wait for optimised code.
    pub baseline: u64,
    /// Some of the files that are being loaded, the next to be ready first.
    pub loading: Vec<LoadingFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadingFile {
    pub file: String,
    /// How long it takes still, estimated when it began.
    pub seconds_left: f64,
}

impl ModuleStore {
    /// All entries, for the operator: file, kind or state, bytes of code, why not.
    pub fn listing(&self) -> Vec<Listed> {
        let cache = self.cache();
        let mut listing: Vec<Listed> = cache.iter().map(|(file, state)| self.line(file, state)).collect();
        listing.sort_by(|a, b| a.file.cmp(&b.file));
        listing
    }

    fn line(&self, file: &str, state: &State<Arc<Function>, Arc<LoadError>, Waiting>) -> Listed {
        let loading = Listed {
            file: file.to_owned(),
            state: "loading",
            kind: None,
            tier: None,
            code_bytes: 0,
            limits: None,
            reason: None,
        };
        match state {
            State::Loading { .. } => loading,
            State::Ready { function, bytes } => Listed {
                state: "ready",
                kind: Some(function.program.kind().as_str()),
                tier: Some(function.tier.as_str()),
                code_bytes: *bytes,
                limits: Some(function.limits.over_defaults(self.loader.defaults.limits)),
                ..loading
            },
            State::Failed { error, .. } => Listed { state: "failed", reason: Some(error.to_string()), ..loading },
        }
    }

    /// Names of files that are no function, because they are being loaded or cannot be.
    pub fn unready(&self) -> Vec<String> {
        let cache = self.cache();
        let unready = |state: &State<_, _, Waiting>| !matches!(state, State::Ready { .. });
        cache.iter().filter(|(_, state)| unready(state)).map(|(file, _)| stem(file).to_owned()).collect()
    }

    /// What there is for each name: the file that it means, as far as it is in memory.
    pub fn listed<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<Option<Listed>> {
        let names: Vec<Option<ModuleName>> = names.into_iter().map(|name| name.parse().ok()).collect();
        let cache = self.cache();
        let listed = |name: Option<ModuleName>| {
            FunctionsDir::candidates(&name?).find_map(|file| cache.state(&file).map(|state| self.line(&file, state)))
        };
        names.into_iter().map(listed).collect()
    }

    /// Where the functions lie.
    pub fn directory(&self) -> &FunctionsDir {
        &self.loader.directory
    }

    /// What is being compiled.
    pub fn compiling(&self) -> Compiling {
        let now = Instant::now();
        let mut loading: Vec<(Instant, String)> = {
            let cache = self.cache();
            let until = |(file, state): (&str, &State<_, _, Waiting>)| match state {
                State::Loading { waiting, .. } => Some((waiting.until, file.to_owned())),
                State::Ready { .. } | State::Failed { .. } => None,
            };
            cache.iter().filter_map(until).collect()
        };
        loading.sort();
        loading.truncate(MOST_LOADING);
        let seconds_left = |until: Instant| until.saturating_duration_since(now).as_secs_f64();
        let (running, waiting, places) = self.loader.compiles();
        Compiling {
            running: running as u64,
            places: places as u64,
            waiting: waiting as u64,
            baseline: self.promotions_waiting() as u64,
            loading: loading
                .into_iter()
                .map(|(until, file)| LoadingFile { file, seconds_left: seconds_left(until) })
                .collect(),
        }
    }
}
