//! Every order in which containerd's calls, the OCI runtime's answers and the ends of processes can meet, up to a depth, for one container and a further
//! process of it. All is the shim's own, from the calls of the Task service to the command lines for the OCI runtime and the events, but for the
//! [`machine`], which starts nothing: each call of the runtime ends when its turn comes, as it may end there.

mod choices;
mod machine;
mod step;
mod told;

use std::{env, fs, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    task::{JoinHandle, yield_now},
    time::timeout,
};

use self::{
    choices::Choices,
    machine::{Child, Machine, Outcome, World},
    step::{Answer, Step, ask, wait},
    told::Told,
};
use super::*;
use crate::{
    events::{Events, Item},
    exits::Exits,
};

const ID: &str = "one";
const EXEC: &str = "exec";
/// How often others get their turn until nothing is left for them to do.
const TURNS: usize = 32;

struct Asked {
    step: Step,
    /// Whether the state of things when it was asked for lets it do nothing but this.
    must_be: Option<Answer>,
    call: JoinHandle<Answer>,
}

struct Run {
    machine: Machine,
    exits: Exits,
    service: Arc<Service>,
    events: mpsc::Receiver<Item>,
    end: Arc<Notify>,
    bundle: PathBuf,
    steps: Vec<Step>,
    asked: Vec<Asked>,
    /// Of processes, by their ids.
    waits: Vec<(&'static str, JoinHandle<Answer>)>,
    told: Told,
}

impl Run {
    fn new(bundle: PathBuf) -> Run {
        let machine = Machine::default();
        let exits = Exits::of(machine.clone());
        let (events, waiting) = Events::queue("test".into());
        let end = Arc::new(Notify::new());
        let pod = Pod::new("test".into(), Bundle::new(&bundle), exits.clone(), events, end.clone());
        let service = Arc::new(Service { pod: Arc::new(pod) });
        let told = Told::default();
        Run {
            machine,
            exits,
            service,
            events: waiting,
            end,
            bundle,
            steps: Vec::new(),
            asked: Vec::new(),
            waits: Vec::new(),
            told,
        }
    }

    fn count(&self, step: Step) -> usize {
        self.steps.iter().filter(|taken| **taken == step).count()
    }

    fn is_calling(&self, name: &str) -> bool {
        self.machine.world().calls.iter().any(|call| call.name == name)
    }

    /// Each call of containerd a few times at most, and one failure of the runtime: others are alike.
    fn enabled(&self, execs: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        let asked = [(Step::Start, 2), (Step::Kill, 1), (Step::Delete, 2)];
        let of_execs = [(Step::AddExec, 1), (Step::StartExec, 2), (Step::KillExec, 1), (Step::DeleteExec, 1)];
        if self.count(Step::Create) == 0 {
            return vec![Step::Create];
        }
        let of_execs = of_execs.into_iter().filter(|_| execs);
        steps.extend(
            asked.into_iter().chain(of_execs).filter(|(step, most)| self.count(*step) < *most).map(|(step, _)| step),
        );
        if !execs && self.is_calling("create") && self.count(Step::Abandon) == 0 {
            steps.push(Step::Abandon);
        }
        let failed = self.steps.iter().any(|step| matches!(step, Step::Call(_, Outcome::Failure)));
        let calls = self.machine.world().calls.len();
        for call in 0..calls {
            let outcomes = self.machine.outcomes(call).iter();
            let outcomes = outcomes.filter(|outcome| !failed || **outcome != Outcome::Failure);
            steps.extend(outcomes.map(|outcome| Step::Call(call, *outcome)));
        }
        let world = self.machine.world();
        if World::runs(world.init) {
            steps.push(Step::Ends);
        }
        if World::runs(world.exec) {
            steps.push(Step::ExecEnds);
        }
        steps
    }

    async fn take(&mut self, step: Step) {
        self.steps.push(step);
        let must_be = self.must_be(step).await;
        match step {
            Step::Call(call, outcome) => self.machine.end_call(&self.exits, call, outcome),
            Step::Ends => self.machine.end_init(&self.exits),
            Step::ExecEnds => self.machine.end_exec(&self.exits),
            Step::Abandon => {
                let create = self.asked.iter().find(|asked| asked.step == Step::Create).expect("it was asked for");
                create.call.abort();
            }
            _ => {
                let call = tokio::spawn(ask(self.service.clone(), step, self.bundle.display().to_string()));
                self.asked.push(Asked { step, must_be, call });
            }
        }
        self.settle().await;
        let waits = self.waits.len();
        // Who waits for the end does so from the beginning.
        if self.waits.is_empty() && self.state().await.is_some() {
            self.waits.push(("", tokio::spawn(wait(self.service.clone(), ""))));
        }
        if step == Step::AddExec {
            self.waits.push((EXEC, tokio::spawn(wait(self.service.clone(), EXEC))));
        }
        if self.waits.len() > waits {
            self.settle().await;
        }
        self.check().await;
    }

    async fn settle(&mut self) {
        for _ in 0..TURNS {
            yield_now().await;
        }
        while let Ok(item) = self.events.try_recv() {
            self.told.hear(item, &self.steps);
        }
    }

    /// As who asks now is told.
    async fn state(&self) -> Option<State> {
        self.state_of("").await
    }

    async fn state_of(&self, exec: &str) -> Option<State> {
        Some(self.service.pod.container(ID).ok()?.snapshot(exec).await.ok()?.state)
    }

    async fn must_be(&self, step: Step) -> Option<Answer> {
        let state = self.state().await;
        let has_exec = self.state_of(EXEC).await.is_some();
        match (step, state) {
            (Step::Create, None) => None,
            (Step::Start | Step::Kill | Step::Delete | Step::AddExec, None) => Some(Err(Code::NOT_FOUND)),
            (Step::Start, Some(State::Starting | State::Running | State::Stopped))
            | (Step::Delete, Some(State::Starting | State::Running))
            | (Step::AddExec | Step::StartExec, Some(State::Stopped))
                if step != Step::StartExec || has_exec =>
            {
                Some(Err(Code::FAILED_PRECONDITION))
            }
            (Step::Kill, Some(_)) => {
                let runs = World::runs(self.machine.world().init);
                Some(if runs { Ok(None) } else { Err(Code::NOT_FOUND) })
            }
            _ => None,
        }
    }

    /// What holds after each step.
    async fn check(&mut self) {
        let state = self.state().await;
        let steps = &self.steps;
        assert!(self.machine.world().mistakes.is_empty(), "{steps:?}: {:?}", self.machine.world().mistakes);
        for asked in &mut self.asked {
            let Some(must_be) = &asked.must_be else { continue };
            assert!(asked.call.is_finished(), "{steps:?}: {:?} is not answered", asked.step);
            let answer = (&mut asked.call).await.expect("it does not panic");
            assert_eq!(answer, *must_be, "{steps:?}: {:?}", asked.step);
        }
        self.asked.retain(|asked| asked.must_be.is_none());
        // The end is told once it is there, unless a start goes on, after whose event it must come.
        let init = self.machine.world().init;
        let ended = init.and_then(|init| init.ended);
        if !self.is_calling("start") && !self.is_calling("create") {
            assert_eq!(self.told.exit, ended, "{steps:?}");
        }
        match state {
            Some(State::Stopped) => assert_eq!(self.told.exit, ended, "{steps:?}"),
            Some(State::Running | State::Paused) => assert!(self.told.runs(), "{steps:?}"),
            Some(State::Created | State::Starting) => assert!(self.told.is_new(), "{steps:?}"),
            None => assert!(!self.told.is_there() || self.count(Step::Abandon) > 0, "{steps:?}"),
        }
    }

    /// All that has begun comes to its end, and what is left is deleted. Each call is answered, and each wait.
    async fn finish(mut self) {
        self.run_out().await;
        let steps = self.steps.clone();
        if self.state().await.is_some() {
            self.take(Step::Delete).await;
            self.run_out().await;
        }
        assert!(self.state().await.is_none(), "{steps:?}");
        let mut deleted = 0;
        for Asked { step, call, .. } in std::mem::take(&mut self.asked) {
            assert!(call.is_finished(), "{steps:?}: {step:?} is not answered");
            let Ok(answer) = call.await else {
                assert_eq!(step, Step::Create, "{steps:?}");
                continue;
            };
            if step == Step::Delete
                && let Ok(exit) = answer
            {
                deleted += 1;
                assert_eq!(exit, self.machine.world().init.and_then(|init| init.ended), "{steps:?}");
            }
        }
        let abandoned = self.count(Step::Abandon) > 0;
        // What nobody asks for any more may be gone without a word.
        assert!(abandoned || self.told.is_deleted == (deleted > 0), "{steps:?}");
        assert!(abandoned || self.told.is_deleted == self.told.was_created(), "{steps:?}");
        for (process, wait) in std::mem::take(&mut self.waits) {
            assert!(wait.is_finished(), "{steps:?}: nobody answers a wait for {process:?}");
            let answer = wait.await.expect("it does not panic");
            let &World { init, exec, .. } = &*self.machine.world();
            let ended = |child: Option<Child>| child.and_then(|child| child.ended);
            if process == EXEC {
                // One that never ran is told of as such, or is gone.
                let possible = [Ok(ended(exec)), Ok(Some(0)), Err(Code::NOT_FOUND)];
                assert!(possible.contains(&answer), "{steps:?}: {answer:?}");
            } else {
                assert_eq!(answer, Ok(ended(init)), "{steps:?}");
            }
        }
        if abandoned {
            self.service.pod.end_if_empty();
            let ended = timeout(Duration::from_secs(30), self.end.notified()).await;
            assert!(ended.is_ok(), "{steps:?}: the shim, without containers, goes on");
        }
    }

    async fn run_out(&mut self) {
        loop {
            let step = {
                let world = self.machine.world();
                if !world.calls.is_empty() {
                    None
                } else if World::runs(world.exec) {
                    Some(Step::ExecEnds)
                } else if World::runs(world.init) {
                    Some(Step::Ends)
                } else {
                    return;
                }
            };
            let step = step.unwrap_or_else(|| Step::Call(0, self.machine.outcomes(0)[0]));
            self.take(step).await;
        }
    }
}

/// Takes all sequences of so many steps after these; says how many there were.
fn all(name: &str, first: &[Step], execs: bool, depth: usize) -> usize {
    let bundle = env::temp_dir().join(format!("wasmbox-{name}-{}", std::process::id()));
    fs::create_dir_all(&bundle).unwrap();
    fs::write(
        bundle.join("config.json"),
        r#"{"ociVersion": "1.0.2", "process": {"args": ["sleep"]}, "linux": {"namespaces": [{"type": "pid"}]}}"#,
    )
    .unwrap();
    let mut choices = Choices::default();
    let mut sequences = 0;
    loop {
        // As the shim's own: one thread.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(bundle.clone());
            for step in first {
                run.take(*step).await;
            }
            for _ in 0..depth {
                let steps = run.enabled(execs);
                if steps.is_empty() {
                    break;
                }
                let step = steps[choices.of(steps.len())];
                run.take(step).await;
            }
            run.finish().await;
        });
        sequences += 1;
        if !choices.next() {
            break;
        }
    }
    fs::remove_dir_all(bundle).unwrap();
    sequences
}

#[test]
fn no_order_of_a_containers_life_confuses_it() {
    let sequences = all("lives", &[], false, 6);
    assert!(sequences > 1000, "{sequences}");
}

#[test]
fn no_order_of_execs_confuses_a_container() {
    let created = [Step::Create, Step::Call(0, Outcome::Success), Step::Start, Step::Call(0, Outcome::Success)];
    let sequences = all("execs", &created, true, 5);
    assert!(sequences > 1000, "{sequences}");
}
