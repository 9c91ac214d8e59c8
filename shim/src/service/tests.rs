//! Every order in which containerd's calls, the OCI runtime's answers and the ends of processes can meet, up to a depth, for one container and a further
//! process of it. All is the shim's own, from the calls of the Task service to the command lines for the OCI runtime and the events, but for the
//! [`machine`], which starts nothing: each call of the runtime ends when its turn comes, as it may end there.

mod choices;
mod machine;
mod step;
mod told;

use std::{
    env, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::{JoinHandle, yield_now},
    time::{sleep, timeout},
};

use self::{
    choices::Choices,
    machine::{Machine, Outcome, World},
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
const TURNS: usize = 8;
/// How long a test waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(30);

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
    fn new(bundle: PathBuf, shares_pids: bool) -> Run {
        let machine = Machine::default();
        machine.world().shares_pids = shares_pids;
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

    /// Whether something was waited for in vain.
    fn is_late(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::TimeIsUp(_)))
    }

    fn is_calling(&self, name: &str) -> bool {
        self.machine.world().calls.iter().any(|call| call.name == name)
    }

    async fn take(&mut self, step: Step) {
        self.steps.push(step);
        let must_be = self.must_be(step).await;
        match step {
            Step::Call(call, outcome) => self.machine.end_call(&self.exits, call, outcome),
            Step::Ends => self.machine.end_init(&self.exits),
            Step::ExecEnds => self.machine.end_exec(&self.exits),
            Step::ExecIsRead => self.machine.world().terminal = None,
            Step::TimeIsUp(timer) => self.machine.time_is_up(timer),
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
        // The end of a terminal comes from the kernel, in its own time.
        let give_up = Instant::now() + PATIENCE;
        while self.owes_an_execs_end() && Instant::now() < give_up {
            sleep(Duration::from_millis(1)).await;
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

    /// An exec has ended, and what it wrote is read.
    fn owes_an_execs_end(&self) -> bool {
        let world = self.machine.world();
        self.told.exec_runs() && !World::runs(world.exec) && world.terminal.is_none()
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
        // What has ended is told of as soon as what it wrote is read.
        assert!(!self.owes_an_execs_end(), "{steps:?}: an exec's end is not told");
        let exec = self.machine.world().exec;
        if self.told.exec_exit.is_some() {
            assert_eq!(self.told.exec_exit, World::status(exec), "{steps:?}");
        }
        // The end is told once it is there, unless a start goes on, after whose event it must come, or an exec's is to come.
        let ended = World::status(self.machine.world().init);
        let waits = ["create", "start", "kill"].iter().any(|name| self.is_calling(name));
        let waits_for_execs = self.machine.world().timers() > 0 && (self.is_calling("exec") || self.told.exec_runs());
        if !waits && !waits_for_execs {
            assert_eq!(self.told.exit, ended, "{steps:?}");
        }
        match state {
            Some(State::Stopped) => assert_eq!(self.told.exit, ended, "{steps:?}"),
            Some(State::Running | State::Paused) => assert!(self.told.runs(), "{steps:?}"),
            Some(State::Created | State::Starting) => assert!(self.told.is_new(), "{steps:?}"),
            None => {
                assert!(!self.told.is_there() || self.count(Step::Abandon) > 0, "{steps:?}");
                assert!(exec.is_none_or(|exec| exec.killed || exec.ended.is_some()), "{steps:?}: an exec is left");
            }
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
        assert_eq!(self.machine.world().timers(), 0, "{steps:?}");
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
                assert_eq!(exit, World::status(self.machine.world().init), "{steps:?}");
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
            if process == EXEC {
                // One that never ran is told of as such, or is gone.
                let possible = [Ok(World::status(exec)), Ok(Some(0)), Err(Code::NOT_FOUND)];
                assert!(possible.contains(&answer), "{steps:?}: {answer:?}");
            } else {
                assert_eq!(answer, Ok(World::status(init)), "{steps:?}");
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
                } else if world.terminal.is_some() {
                    Some(Step::ExecIsRead)
                } else if World::runs(world.init) {
                    Some(Step::Ends)
                } else {
                    return;
                }
            };
            let step = step.unwrap_or_else(|| {
                // The latest first, so that a deletion does not wait for an exec.
                let call = self.machine.world().calls.len() - 1;
                Step::Call(call, self.machine.outcomes(call)[0])
            });
            self.take(step).await;
        }
    }
}

/// Takes all sequences of so many steps after these; says how many there were.
fn all(name: &str, first: &[Step], execs: bool, shares_pids: bool, depth: usize) -> usize {
    let bundle = env::temp_dir().join(format!("wasmbox-{name}-{}", std::process::id()));
    fs::create_dir_all(&bundle).unwrap();
    let namespaces = if shares_pids { "" } else { r#"{"type": "pid"}"# };
    let linux = format!(r#""linux": {{"namespaces": [{namespaces}]}}"#);
    let config = format!(r#"{{"ociVersion": "1.0.2", "process": {{"args": ["sleep"]}}, {linux}}}"#);
    fs::write(bundle.join("config.json"), config).unwrap();
    let mut choices = Choices::default();
    let mut sequences = 0;
    loop {
        // As the shim's own: one thread.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new(bundle.clone(), shares_pids);
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

const SUCCEEDS: Step = Step::Call(0, Outcome::Success);

#[test]
fn no_order_of_a_containers_life_confuses_it() {
    let sequences = all("lives", &[], false, false, 6);
    assert!(sequences > 1000, "{sequences}");
}

#[test]
fn no_order_of_execs_confuses_a_container() {
    let started = [Step::Create, SUCCEEDS, Step::Start, SUCCEEDS];
    for shares_pids in [false, true] {
        let sequences = all("execs", &started, true, shares_pids, 4);
        assert!(sequences > 1000, "{sequences}");
    }
}

/// While one is being started, in a container that runs and in one that does not yet; and while one runs.
#[test]
fn no_order_of_their_ends_loses_an_exec() {
    let starting = [Step::Create, SUCCEEDS, Step::AddExec, Step::StartExec];
    let started = [Step::Create, SUCCEEDS, Step::Start, SUCCEEDS, Step::AddExec, Step::StartExec];
    let running = [&started[..], &[SUCCEEDS]].concat();
    let mut sequences = 0;
    for shares_pids in [false, true] {
        for first in [&starting[..], &started, &running] {
            sequences += all("ends", first, true, shares_pids, 3);
        }
    }
    assert!(sequences > 1000, "{sequences}");
}
