//! The Task service (containerd `runtime/task/v3`; version 2 has the same calls): from requests to the pod, and back. It decides nothing
//! but which gRPC status an error is.

use std::sync::Arc;

use crate::{
    bundle::Bundle,
    container::{Command, ContainerError, Reply, timestamp},
    exits::Exit,
    pod::{Pod, PodError, Request},
    process::State,
    runtime::RuntimeError,
    stdio::Addresses,
};
use async_trait::async_trait;
use containerd_shim::TtrpcResult;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
        ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
        StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    protobuf::{EnumOrUnknown, Message, MessageField, well_known_types::any::Any},
    shim::oci::ProcessDetails,
    shim_async::Task,
    ttrpc::{self, Code, r#async::TtrpcContext},
};

pub struct Service {
    pub pod: Arc<Pod>,
}

fn status(code: Code, error: &impl ToString) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error.to_string()))
}

fn refuse(error: PodError) -> ttrpc::Error {
    let code = match &error {
        PodError::Exists(_) => Code::ALREADY_EXISTS,
        PodError::NotFound(_) => Code::NOT_FOUND,
        PodError::Options(_) | PodError::Spec(_) | PodError::Kind(_) | PodError::Edit(_) => Code::INVALID_ARGUMENT,
        PodError::Ending => Code::UNAVAILABLE,
        PodError::NoBinary { .. } => Code::FAILED_PRECONDITION,
        PodError::Io { .. } => Code::UNKNOWN,
        PodError::Container(error) => match error {
            ContainerError::Exists { .. } => Code::ALREADY_EXISTS,
            ContainerError::Deleted { .. } | ContainerError::NoProcess { .. } | ContainerError::Finished { .. } => {
                Code::NOT_FOUND
            }
            ContainerError::ProcessId { .. } | ContainerError::ProcessSpec { .. } | ContainerError::Signal { .. } => {
                Code::INVALID_ARGUMENT
            }
            ContainerError::Deleting { .. } | ContainerError::Exec { .. } | ContainerError::Transition(_) => {
                Code::FAILED_PRECONDITION
            }
            ContainerError::Unanswered { .. } => Code::INTERNAL,
            ContainerError::Runtime(RuntimeError::Timeout { .. }) => Code::DEADLINE_EXCEEDED,
            ContainerError::Runtime(
                RuntimeError::Start { .. } | RuntimeError::Failed { .. } | RuntimeError::PidFile { .. },
            )
            | ContainerError::Rootfs { .. }
            | ContainerError::NoCgroup { .. }
            | ContainerError::Stats { .. }
            | ContainerError::Stdio(_)
            | ContainerError::Io { .. } => Code::UNKNOWN,
        },
    };
    // containerd asks so to find out whether something is still there.
    let level = if code == Code::NOT_FOUND { log::Level::Debug } else { log::Level::Error };
    log::log!(level, "{error}");
    status(code, &error)
}

impl Service {
    /// Asks a container. It does what it is asked to the end, also if containerd ends meanwhile or waits no longer, at which this is dropped.
    async fn ask<T>(&self, id: &str, command: impl FnOnce(Reply<T>) -> Command) -> TtrpcResult<T> {
        let container = self.pod.container(id).map_err(refuse)?;
        container.ask(command).await.map_err(|error| refuse(error.into()))
    }
}

fn exited(
    exit: Option<Exit>,
) -> (u32, MessageField<containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp>) {
    exit.map_or((0, MessageField::none()), |exit| (exit.status, timestamp(exit.at)))
}

#[async_trait]
impl Task for Service {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let container = self.pod.container(&request.id).map_err(refuse)?;
        let process = container.snapshot(&request.exec_id).await.map_err(|error| refuse(error.into()))?;
        let state = match process.state {
            State::Created | State::Starting => Status::CREATED,
            State::Running => Status::RUNNING,
            State::Paused => Status::PAUSED,
            State::Stopped => Status::STOPPED,
        };
        let (exit_status, exited_at) = exited(*process.end.borrow());
        Ok(StateResponse {
            id: request.id,
            exec_id: request.exec_id,
            bundle: container.bundle.path().display().to_string(),
            pid: process.pid,
            status: EnumOrUnknown::new(state),
            stdin: process.addresses.stdin,
            stdout: process.addresses.stdout,
            stderr: process.addresses.stderr,
            terminal: process.addresses.terminal,
            exit_status,
            exited_at,
            ..Default::default()
        })
    }

    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> TtrpcResult<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(status(Code::UNIMPLEMENTED, &"restoring a checkpoint is not supported"));
        }
        let addresses = Addresses {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let wanted = Request { id: request.id, bundle: Bundle::new(request.bundle), rootfs: request.rootfs, addresses };
        let container = self.pod.create(wanted, request.options.into_option()).await.map_err(refuse)?;
        Ok(CreateTaskResponse { pid: container.pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        let pid = self.ask(&request.id, |reply| Command::Start { exec: request.exec_id, reply }).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        let (pid, exit) = self.ask(&request.id, |reply| Command::Delete { exec: request.exec_id, reply }).await?;
        Ok(DeleteResponse { pid, exit_status: exit.status, exited_at: timestamp(exit.at), ..Default::default() })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let mut processes = Vec::new();
        for (pid, exec) in self.ask(&request.id, Command::Pids).await? {
            let mut info = ProcessInfo { pid, ..Default::default() };
            if let Some(exec_id) = exec {
                let details = ProcessDetails { exec_id, ..Default::default() };
                let value = details.write_to_bytes().map_err(|error| status(Code::INTERNAL, &error))?;
                let type_url = "containerd.runc.v1.ProcessDetails".into();
                info.info = MessageField::some(Any { type_url, value, ..Any::default() });
            }
            processes.push(info);
        }
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        self.ask(&request.id, Command::Pause).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        self.ask(&request.id, Command::Resume).await?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        Err(status(Code::UNIMPLEMENTED, &"checkpoints are not supported"))
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let KillRequest { id, exec_id: exec, signal, all, .. } = request;
        self.ask(&id, |reply| Command::Kill { exec, signal, all, reply }).await?;
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> TtrpcResult<Empty> {
        let addresses = Addresses {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let (exec, spec) = (request.exec_id, request.spec.unwrap_or_default().value);
        self.ask(&request.id, |reply| Command::AddExec { exec, addresses, spec, reply }).await?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let ResizePtyRequest { id, exec_id: exec, height, width, .. } = request;
        self.ask(&id, |reply| Command::Resize { exec, height, width, reply }).await?;
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        let CloseIORequest { id, exec_id: exec, stdin, .. } = request;
        self.ask(&id, |reply| Command::CloseIo { exec, stdin, reply }).await?;
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let resources = request.resources.unwrap_or_default().value;
        self.ask(&request.id, |reply| Command::Update { resources, reply }).await?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let mut end = self.ask(&request.id, |reply| Command::State { exec: request.exec_id, reply }).await?.end;
        let exit =
            end.wait_for(Option::is_some).await.map_err(|_| status(Code::NOT_FOUND, &"the process was deleted"))?;
        let (exit_status, exited_at) = exited(*exit);
        Ok(WaitResponse { exit_status, exited_at, ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        let stats = self.ask(&request.id, Command::Stats).await?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        let task_pid = match self.pod.container(&request.id) {
            // Whoever asks so wants the shim's own.
            Err(_) if request.id.is_empty() => 0,
            Ok(container) => container.pid,
            Err(_) if self.pod.is_creating(&request.id) => 0,
            Err(error) => {
                // containerd, restarted, asks for a container whose creation it never asked for. It removes the bundle now, and no more:
                // only the shim knows that it itself is not needed.
                self.pod.end_if_empty();
                return Err(refuse(error));
            }
        };
        let version = env!("CARGO_PKG_VERSION").into();
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, version, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> TtrpcResult<Empty> {
        self.pod.end_if_empty();
        Ok(Empty::default())
    }
}

#[cfg(test)]
mod tests;
