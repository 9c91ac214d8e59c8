//! What can happen next: calls of containerd's, and how they are made; what the machine does.

use std::{path::PathBuf, sync::Arc};

use containerd_shim_protos::shim::oci;

use super::{super::*, EXEC, ID, Run, World, machine::Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    /// containerd ends, or gives up, before it has the answer.
    Abandon,
    Start,
    Kill,
    Delete,
    AddExec,
    StartExec,
    KillExec,
    DeleteExec,
    /// A call of the OCI runtime ends.
    Call(usize, Outcome),
    Ends,
    ExecEnds,
    /// What it wrote to its terminal.
    ExecIsRead,
    /// Something was waited for long enough.
    TimeIsUp(usize),
}

/// What a call of the service gave: the exit status, of those that tell one.
pub type Answer = Result<Option<u32>, Code>;

fn code<T>(answer: TtrpcResult<T>, exit: impl FnOnce(T) -> Option<u32>) -> Answer {
    match answer {
        Ok(answer) => Ok(exit(answer)),
        Err(ttrpc::Error::RpcStatus(status)) => Err(status.code()),
        Err(error) => panic!("{error}"),
    }
}

pub async fn wait(service: Arc<Service>, exec: &str) -> Answer {
    let request = WaitRequest { id: ID.into(), exec_id: exec.into(), ..Default::default() };
    code(service.wait(&TtrpcContext::default(), request).await, |answer| Some(answer.exit_status))
}

pub async fn ask(service: Arc<Service>, step: Step, bundle: String) -> Answer {
    let context = TtrpcContext::default();
    let (id, nothing) = (ID.to_owned(), String::new());
    let exec = || EXEC.to_owned();
    let delete = |exec_id: String| DeleteRequest { id: ID.into(), exec_id, ..Default::default() };
    let kill = |exec_id: String| KillRequest { id: ID.into(), exec_id, signal: 9, ..Default::default() };
    let start = |exec_id: String| StartRequest { id: ID.into(), exec_id, ..Default::default() };
    let none = |_| None;
    match step {
        Step::Create => {
            let root = PathBuf::from(&bundle).join("root").display().to_string();
            let value = oci::Options { root, ..Default::default() }.write_to_bytes().unwrap();
            let options = Any { type_url: "containerd.runc.v1.Options".into(), value, ..Any::default() };
            let options = MessageField::some(options);
            let request = CreateTaskRequest { id, bundle, options, ..Default::default() };
            code(service.create(&context, request).await, |_| None)
        }
        Step::Start => code(service.start(&context, start(nothing)).await, |_| None),
        Step::StartExec => code(service.start(&context, start(exec())).await, |_| None),
        Step::Kill => code(service.kill(&context, kill(nothing)).await, none),
        Step::KillExec => code(service.kill(&context, kill(exec())).await, none),
        Step::Delete => code(service.delete(&context, delete(nothing)).await, |answer| Some(answer.exit_status)),
        Step::DeleteExec => code(service.delete(&context, delete(exec())).await, |answer| Some(answer.exit_status)),
        Step::AddExec => {
            let spec = MessageField::some(Any { value: b"{}".to_vec(), ..Any::default() });
            let stdout = format!("file://{bundle}/output");
            let request =
                ExecProcessRequest { id, exec_id: exec(), terminal: true, stdout, spec, ..Default::default() };
            code(service.exec(&context, request).await, none)
        }
        Step::Abandon | Step::Call(..) | Step::Ends | Step::ExecEnds | Step::ExecIsRead | Step::TimeIsUp(_) => {
            panic!("{step:?} is no call")
        }
    }
}

impl Run {
    /// Each call of containerd a few times at most, and one failure of the runtime: others are alike.
    pub fn enabled(&self, execs: bool) -> Vec<Step> {
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
        let mut world = self.machine.world();
        if World::runs(world.init) {
            steps.push(Step::Ends);
        }
        if World::runs(world.exec) {
            steps.push(Step::ExecEnds);
        } else if world.terminal.is_some() {
            steps.push(Step::ExecIsRead);
        }
        if !self.is_late() {
            steps.extend((0..world.timers()).map(Step::TimeIsUp));
        }
        steps
    }

    pub async fn must_be(&self, step: Step) -> Option<Answer> {
        let state = self.state().await;
        let has_exec = self.state_of(EXEC).await.is_some();
        let init = self.machine.world().init;
        match (step, state) {
            (Step::Create, None) => None,
            (Step::Start | Step::Kill | Step::Delete | Step::AddExec, None) => Some(Err(Code::NOT_FOUND)),
            (Step::Start, Some(State::Starting | State::Running | State::Stopped))
            | (Step::Delete, Some(State::Starting | State::Running)) => Some(Err(Code::FAILED_PRECONDITION)),
            // Also if its end is not told yet.
            (Step::Start | Step::AddExec | Step::StartExec, Some(_))
                if World::status(init).is_some() && (step != Step::StartExec || has_exec) =>
            {
                Some(Err(Code::FAILED_PRECONDITION))
            }
            (Step::Kill, Some(_)) => Some(if World::runs(init) { Ok(None) } else { Err(Code::NOT_FOUND) }),
            _ => None,
        }
    }
}
