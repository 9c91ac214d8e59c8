//! Who is woken for which job: without a clock, a thread or a lock.
//!
//! A worker that has just begun a job that usually takes less than [`SHORT`] is about to end: then a further job waits for it, because that
//! is sooner than waking another thread. There are never more such waiting jobs than such workers, unless there are as many as
//! cores; and no job waits long: a worker that has been busy for [`LATE`] counts no more, and another is woken or started. So short jobs run
//! on few warm threads, and long or sleeping ones never hold the others up.
//!
//! The most recently used idle worker goes first, so that caches are warm and the others can end.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A job that usually takes longer is not waited for.
pub const SHORT: Duration = Duration::from_micros(300);
/// A job that has run for longer is not about to end, whatever is usual.
pub const LATE: Duration = Duration::from_millis(2);

/// Jobs `J` that wait, and workers `W` as far as they can take one.
#[derive(Debug)]
pub struct Dispatch<W, J> {
    /// The jobs, and whether each is short. Bounded by admission.
    queue: VecDeque<(J, bool)>,
    /// The last is the most recently used.
    idle: Vec<W>,
    /// Workers that are about to end their jobs, as far as is known, and when they began them.
    ending: Vec<(W, Instant)>,
    cores: usize,
}

/// Who is to take the first job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake<W> {
    Idle(W),
    /// A worker that is to be started.
    New,
}

impl<W: Clone + PartialEq, J> Dispatch<W, J> {
    pub fn new(cores: usize) -> Self {
        Dispatch { queue: VecDeque::new(), idle: Vec::new(), ending: Vec::new(), cores }
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The jobs that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &J> {
        self.queue.iter().map(|(job, _)| job)
    }

    /// A job comes that `usually` takes so long, if that is known.
    pub fn push(&mut self, job: J, usually: Option<Duration>) {
        self.queue.push_back((job, usually.is_some_and(|usual| usual < SHORT)));
    }

    /// Who is to be woken for the first job now; `None` if none waits, or if a busy worker will take it sooner. An idle one is idle no
    /// more: it must be given the job.
    pub fn wake(&mut self, now: Instant) -> Option<Wake<W>> {
        if self.queue.is_empty() {
            return None;
        }
        if self.ends_soon() {
            self.ending.retain(|(_, begun)| now.duration_since(*begun) < LATE);
            if self.ends_soon() {
                return None;
            }
        }
        Some(self.idle.pop().map_or(Wake::New, Wake::Idle))
    }

    /// Whether each waiting job has a worker that will be free before another could be woken.
    fn ends_soon(&self) -> bool {
        self.ending.len() >= self.cores || self.queue.len() <= self.ending.len()
    }

    /// `worker` begins the first job.
    pub fn begin(&mut self, worker: &W, now: Instant) -> Option<J> {
        let (job, short) = self.queue.pop_front()?;
        if short {
            self.ending.push((worker.clone(), now));
        }
        Some(job)
    }

    /// `worker` has ended a job: gives the next one, or counts it as idle.
    pub fn next(&mut self, worker: &W, now: Instant) -> Option<J> {
        if let Some(position) = self.ending.iter().position(|(ending, _)| ending == worker) {
            self.ending.swap_remove(position);
        }
        let next = self.begin(worker, now);
        if next.is_none() {
            self.idle.push(worker.clone());
        }
        next
    }

    /// `worker` wants to end. Refused if it is idle no more: then it is about to be given a job.
    pub fn retire(&mut self, worker: &W) -> bool {
        let position = self.idle.iter().position(|idle| idle == worker);
        position.map(|position| self.idle.remove(position)).is_some()
    }

    /// Takes out all jobs that wait.
    pub fn clear(&mut self) -> Vec<J> {
        self.queue.drain(..).map(|(job, _)| job).collect()
    }

    /// All idle workers, which are no more.
    pub fn take_idle(&mut self) -> Vec<W> {
        std::mem::take(&mut self.idle)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Option<Duration> = Some(Duration::from_micros(50));
    const SLOW: Option<Duration> = Some(Duration::from_millis(5));

    /// Worker 0 has begun a job that usually takes `usually`.
    fn with_one_busy(usually: Option<Duration>, now: Instant) -> Dispatch<u32, &'static str> {
        let mut dispatch = Dispatch::new(2);
        dispatch.push("first", usually);
        assert_eq!(dispatch.wake(now), Some(Wake::New));
        assert_eq!(dispatch.begin(&0, now), Some("first"));
        dispatch
    }

    #[test]
    fn a_job_waits_for_a_worker_that_is_about_to_end() {
        let now = Instant::now();
        let mut dispatch = with_one_busy(QUICK, now);
        dispatch.push("second", SLOW);
        assert_eq!(dispatch.wake(now), None);
        assert_eq!(dispatch.next(&0, now), Some("second"));
        dispatch.push("third", QUICK);
        assert_eq!(dispatch.wake(now), Some(Wake::New), "the second is slow");
    }

    #[test]
    fn nobody_waits_for_what_is_slow_or_unknown_or_late() {
        let now = Instant::now();
        for usually in [SLOW, None] {
            let mut dispatch = with_one_busy(usually, now);
            dispatch.push("second", QUICK);
            assert_eq!(dispatch.wake(now), Some(Wake::New), "{usually:?}");
        }
        let mut dispatch = with_one_busy(QUICK, now);
        dispatch.push("second", QUICK);
        assert_eq!(dispatch.wake(now + LATE - Duration::from_micros(1)), None);
        assert_eq!(dispatch.wake(now + LATE), Some(Wake::New));
    }

    #[test]
    fn no_more_jobs_wait_than_workers_are_about_to_end_unless_these_have_all_cores() {
        let now = Instant::now();
        let mut dispatch = with_one_busy(QUICK, now);
        dispatch.push("second", QUICK);
        assert_eq!(dispatch.wake(now), None);
        dispatch.push("third", QUICK);
        assert_eq!(dispatch.wake(now), Some(Wake::New), "two wait for one");
        assert_eq!(dispatch.begin(&1, now), Some("second"));
        for job in ["fourth", "fifth", "sixth"] {
            dispatch.push(job, QUICK);
            assert_eq!(dispatch.wake(now), None, "both cores are busy, {job}");
        }
    }

    #[test]
    fn the_most_recently_used_goes_first_and_who_is_taken_cannot_retire() {
        let now = Instant::now();
        let mut dispatch = with_one_busy(SLOW, now);
        assert_eq!((dispatch.next(&1, now), dispatch.next(&0, now)), (None, None));
        dispatch.push("second", SLOW);
        assert_eq!(dispatch.wake(now), Some(Wake::Idle(0)));
        assert!(!dispatch.retire(&0), "it is about to be given the job");
        assert!(dispatch.retire(&1));
        assert!(!dispatch.retire(&1));
        assert_eq!(dispatch.begin(&0, now), Some("second"));
        assert!(dispatch.take_idle().is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(Option<Duration>),
        End(usize),
        Pass(Duration),
        Retire(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            prop_oneof![Just(QUICK), Just(SLOW), Just(None)].prop_map(Step::Push),
            (0_usize..8).prop_map(Step::End),
            (0_u64..3000).prop_map(|microseconds| Step::Pass(Duration::from_micros(microseconds))),
            (0_usize..8).prop_map(Step::Retire),
        ]
    }

    /// Workers around a dispatch of jobs that are numbers.
    struct Model {
        dispatch: Dispatch<u32, u32>,
        busy: Vec<u32>,
        workers: u32,
        begun: u32,
    }

    impl Model {
        /// Gives jobs to whoever is woken for them.
        fn serve(&mut self, now: Instant) {
            while let Some(wake) = self.dispatch.wake(now) {
                let worker = match wake {
                    Wake::Idle(worker) => worker,
                    Wake::New => {
                        self.workers += 1;
                        self.workers
                    }
                };
                assert!(!self.busy.contains(&worker), "it has one already");
                self.busy.push(worker);
                let job = self.dispatch.begin(&worker, now);
                self.begins(job.expect("somebody was woken for it"));
            }
        }

        fn begins(&mut self, job: u32) {
            assert_eq!(job, self.begun, "in order, and once");
            self.begun += 1;
        }

        fn end(&mut self, which: usize, now: Instant) {
            if self.busy.is_empty() {
                return;
            }
            let which = which % self.busy.len();
            match self.dispatch.next(&self.busy[which], now) {
                Some(job) => self.begins(job),
                None => drop(self.busy.remove(which)),
            }
        }
    }

    proptest! {
        /// Whatever comes: each job is begun once, in order; no busy worker is given another; and after [`LATE`] nobody waits.
        #[test]
        fn no_job_is_lost_or_waits_for_long(steps in prop::collection::vec(step(), 1..200)) {
            let mut now = Instant::now();
            let mut model = Model { dispatch: Dispatch::new(2), busy: Vec::new(), workers: 0, begun: 0 };
            let mut pushed = 0;
            for step in steps {
                match step {
                    Step::Push(usually) => {
                        model.dispatch.push(pushed, usually);
                        pushed += 1;
                    }
                    Step::End(which) => model.end(which, now),
                    Step::Pass(time) => now += time,
                    Step::Retire(which) => {
                        let worker = u32::try_from(which).unwrap();
                        prop_assert!(!(model.dispatch.retire(&worker) && model.busy.contains(&worker)));
                    }
                }
                model.serve(now);
            }
            // Those woken late for a short job are late in their turn.
            for _ in 0..=pushed {
                now += LATE;
                model.serve(now);
            }
            prop_assert!(model.dispatch.is_empty());
            prop_assert_eq!(model.begun, pushed);
        }
    }
}
