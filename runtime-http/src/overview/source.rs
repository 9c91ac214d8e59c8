//! Where the overview comes from.
//!
//! What it costs grows with the functions in memory, so it is made on a thread that may take its time, by one at a time, ten in a second at
//! most, and serves all who ask for the same within a second. The lock on functions is held for two looks at their states, and for one at each of
//! those that are shown.

use std::{
    cmp::Ordering,
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    Counts, FailedInvocation, FunctionRow, Functions, Latency, Overview,
    directory::Directory,
    query::{Query, Sort},
};
use crate::{
    core::Core,
    excerpt::excerpt,
    failures::Failed,
    limits::CpuQuota,
    metrics::activity::{Activity, Averages, Rates, Totals},
    status::StatusSource,
};

/// A document serves for so long.
const SERVES: Duration = Duration::from_secs(1);
/// Documents that are held, for other queries.
const HELD: usize = 4;
/// Between two that are made: whoever asks for others without end has a tenth of a core at most.
const BETWEEN: Duration = Duration::from_millis(100);
/// When nobody has looked for so long, rates begin anew, and the first document takes as long as they need.
const FORGOTTEN: Duration = Duration::from_secs(10);
const FIRST_RATES: Duration = Duration::from_secs(1);

/// Makes the document.
pub struct OverviewSource {
    core: Arc<Core>,
    status: Arc<StatusSource>,
    /// That the box may use.
    cores: f64,
    uploads: bool,
    /// Whether it tells what failed functions wrote last.
    last_words: bool,
    /// Where it is made.
    runtime: Handle,
    one: Arc<Semaphore>,
    /// Guarded by `one`, too: nobody waits for this lock.
    made: Mutex<Made>,
}

struct Made {
    /// When somebody looked last.
    looked: Option<Instant>,
    averages: Averages,
    directory: Directory,
    documents: Vec<(Query, Instant, Bytes)>,
}

/// A function in the list of all.
struct Candidate {
    /// `None`: it was never ready, or it was forgotten.
    activity: Option<(Arc<Activity>, Totals)>,
    name: Arc<str>,
    /// The most first: what happens now, then what happened.
    key: (f64, u64),
}

impl OverviewSource {
    pub fn new(
        core: Arc<Core>,
        status: Arc<StatusSource>,
        cores: f64,
        (uploads, last_words): (bool, bool),
        runtime: Handle,
    ) -> Arc<OverviewSource> {
        let directory = Directory::new(core.store.directory().clone());
        let averages = Averages::new(Instant::now());
        let made = Mutex::new(Made { looked: None, averages, directory, documents: Vec::new() });
        let one = Arc::new(Semaphore::new(1));
        Arc::new(OverviewSource { core, status, cores, uploads, last_words, runtime, one, made })
    }

    /// The document as JSON, not older than a second. `None` if the box ends.
    pub async fn document(self: &Arc<Self>, query: Query) -> Option<Bytes> {
        let turn = self.one.clone().acquire_owned().await.expect("the semaphore is never closed");
        let source = self.clone();
        let runtime = self.runtime.clone();
        let made = self.runtime.spawn_blocking(move || {
            // It goes on when its client leaves, and so does what bounds it.
            let begun = Instant::now();
            let document = source.made_for(&query);
            runtime.spawn(async move {
                tokio::time::sleep_until((begun + BETWEEN).into()).await;
                drop(turn);
            });
            document
        });
        made.await.ok()
    }

    fn made_for(&self, query: &Query) -> Bytes {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let looked = made.looked.replace(Instant::now());
        let memory = self.core.sizing.now().memory_limit;
        made.directory.look(&self.runtime, memory);
        if looked.is_none_or(|looked| looked.elapsed() >= FORGOTTEN) {
            self.restart(&mut made.averages, Instant::now());
            std::thread::sleep(FIRST_RATES);
        }
        let now = Instant::now();
        made.documents.retain(|(_, at, _)| now.saturating_duration_since(*at) < SERVES);
        if let Some((_, _, document)) = made.documents.iter().find(|(known, _, _)| known == query) {
            return document.clone();
        }
        made.directory.look(&self.runtime, memory);
        let overview = self.read(query, &mut made, now);
        let text = serde_json::to_vec(&overview).expect("names and numbers are representable in JSON");
        let document = Bytes::from(text.into_boxed_slice());
        if made.documents.len() >= HELD {
            made.documents.remove(0);
        }
        made.documents.push((query.clone(), now, document.clone()));
        document
    }

    fn restart(&self, averages: &mut Averages, now: Instant) {
        let activities = &self.core.metrics.activities;
        let mut all = activities.gone();
        for activity in activities.all() {
            all.add(&activity.totals());
            activity.restart(now);
        }
        averages.restart(&all, now);
    }

    fn read(&self, query: &Query, made: &mut Made, now: Instant) -> Overview {
        let metrics = &self.core.metrics;
        let mut candidates = Vec::new();
        let mut names = 0;
        let mut known = HashSet::new();
        let unready = self.core.store.unready();
        // In this order: one that goes in between is counted once.
        let held = metrics.activities.all();
        let mut all = metrics.activities.gone();
        for activity in held {
            names += 1;
            let totals = activity.totals();
            all.add(&totals);
            // Of each, so that a rate is an average since the last document, whatever that showed.
            let rates = activity.rates(&totals, now);
            known.insert(activity.name().clone());
            if query.takes(activity.name()) {
                let key = key(query.sort, &activity, &totals, rates);
                candidates.push(Candidate { name: activity.name().clone(), activity: Some((activity, totals)), key });
            }
        }
        for name in unready.into_iter().map(Arc::from).chain(made.directory.names().iter().cloned()) {
            if !known.insert(name.clone()) {
                continue;
            }
            names += 1;
            if query.takes(&name) {
                candidates.push(Candidate { activity: None, name, key: (0.0, 0) });
            }
        }
        let matching = candidates.len();
        let rows = self.rows(page(candidates, query), now);
        Overview {
            status: self.status.read(),
            cpu_limit_cores: self.cores,
            totals: Counts::new(&all, made.averages.update(&all, now)),
            latency: Latency::new(&all),
            evicted: metrics.evicted.get(),
            growth_waits: metrics.growth_waits.get(),
            compiling: self.core.store.compiling(),
            functions: Functions {
                all: names,
                matching: matching as u64,
                offset: query.offset as u64,
                directory: made.directory.state(),
                rows,
            },
            failures: metrics.failures.last(query.failures).into_iter().map(|failed| self.failed(failed)).collect(),
            uploads: self.uploads,
        }
    }

    fn failed(&self, failed: Failed) -> FailedInvocation {
        let failed = FailedInvocation::from(failed);
        if self.last_words { failed } else { FailedInvocation { stderr: String::new(), ..failed } }
    }

    /// Cores that invocations with that quota may use, of which so many run at once. One is one thread.
    fn allowed(&self, quota: CpuQuota, rates: Rates) -> f64 {
        let one = (f64::from(quota.millicores()) / 1000.0).min(1.0);
        (one * rates.executing.max(1.0)).min(self.cores)
    }

    fn rows(&self, page: Vec<Candidate>, now: Instant) -> Vec<FunctionRow> {
        let listed = self.core.store.listed(page.iter().map(|candidate| &*candidate.name));
        let row = |(candidate, listed): (Candidate, Option<crate::store::listing::Listed>)| {
            let (totals, rates, running, memory_peak_bytes) = match &candidate.activity {
                Some((activity, totals)) => {
                    (*totals, activity.rates(totals, now), activity.running(), activity.memory_peak())
                }
                None => Default::default(),
            };
            let mut row = FunctionRow {
                name: candidate.name.to_string(),
                state: "unloaded".into(),
                file: None,
                kind: None,
                tier: None,
                code_bytes: 0,
                running,
                counts: Counts::new(&totals, rates),
                memory_peak_bytes,
                cpu_limit_cores: None,
                memory_limit_bytes: None,
                p50_seconds: totals.quantile(0.5),
                p99_seconds: totals.quantile(0.99),
                limits: None,
                reason: None,
            };
            if let Some(listed) = listed {
                row.state = listed.state.into();
                row.file = Some(listed.file);
                row.kind = listed.kind.map(str::to_owned);
                row.tier = listed.tier.map(str::to_owned);
                row.code_bytes = listed.code_bytes as u64;
                if let Some(limits) = listed.limits {
                    row.cpu_limit_cores = Some(self.allowed(limits.cpu_quota, rates));
                    row.memory_limit_bytes = Some(limits.memory.bytes());
                    row.limits = Some(limits.into());
                }
                row.reason = listed.reason.map(excerpt);
            }
            row
        };
        page.into_iter().zip(listed).map(row).collect()
    }
}

fn key(sort: Sort, activity: &Activity, totals: &Totals, rates: Rates) -> (f64, u64) {
    match sort {
        Sort::Cpu => (rates.cpu_cores, totals.cpu_us),
        Sort::Memory => (0.0, activity.memory_peak()),
        Sort::Calls => (rates.calls, totals.calls()),
        Sort::Errors => (rates.errors, totals.errors),
        Sort::Running => (0.0, activity.running()),
        Sort::Latency => (totals.quantile(0.99).unwrap_or(0.0), totals.calls()),
        Sort::Name => (0.0, 0),
    }
}

/// The candidates that are shown, in order. Not all are sorted.
fn page(mut candidates: Vec<Candidate>, query: &Query) -> Vec<Candidate> {
    let order = |one: &Candidate, other: &Candidate| -> Ordering {
        let most = other.key.0.total_cmp(&one.key.0).then(other.key.1.cmp(&one.key.1));
        most.then_with(|| one.name.cmp(&other.name))
    };
    let end = query.offset.saturating_add(query.limit);
    if end < candidates.len() {
        candidates.select_nth_unstable_by(end, order);
        candidates.truncate(end);
    }
    candidates.sort_unstable_by(order);
    candidates.drain(..query.offset.min(candidates.len()));
    candidates
}

impl From<Failed> for FailedInvocation {
    fn from(failed: Failed) -> FailedInvocation {
        let at = failed.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        FailedInvocation {
            invocation_id: failed.id.to_string(),
            function: failed.function.to_string(),
            at_unix_ms: u64::try_from(at).unwrap_or(u64::MAX),
            status: failed.status,
            code: failed.code.to_owned(),
            reason: failed.reason,
            stderr: failed.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_parts_of_one_order() {
        let candidates = || {
            let candidate = |number: u64| {
                let name = format!("f{number:05}").into();
                Candidate { activity: None, name, key: (f64::from(number as u32 % 10), number % 7) }
            };
            (0..10_000).map(candidate).collect::<Vec<_>>()
        };
        let names = |offset, limit| {
            let page = page(candidates(), &Query { offset, limit, ..Query::default() });
            page.into_iter().map(|candidate| candidate.name.to_string()).collect::<Vec<_>>()
        };
        let all = names(0, 10_000);
        assert_eq!((all.len(), all[0].as_str()), (10_000, "f00069"));
        for offset in [0, 50, 9_950, 9_990, 10_000, 20_000] {
            let from = offset.min(10_000);
            assert_eq!(names(offset, 50), all[from..(from + 50).min(10_000)], "{offset}");
        }
    }
}
