//! What can happen next: calls of containerd's, and how they are made; what the machine does.

use std::{path::PathBuf, sync::Arc};

use containerd_shim_protos::shim::oci;

use super::{super::*, EXEC, ID, machine::Outcome};

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
            let request = ExecProcessRequest { id, exec_id: exec(), spec, ..Default::default() };
            code(service.exec(&context, request).await, none)
        }
        Step::Abandon | Step::Call(..) | Step::Ends | Step::ExecEnds => panic!("{step:?} is no call"),
    }
}
