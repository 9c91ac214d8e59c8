//! Runs commands: `_start` of a core module, `wasi:cli/run` of a component.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wasmtime::{Store, component::ResourceTable};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, p1::WasiP1Ctx, p2::bindings::CommandPre};

use super::{
    Grants, Input, Invocation, Meter, Reply, RequestBody,
    body::BodyFate,
    bounded, bounded_store,
    failure::{Failure, Notes, classify, noted},
    http::ComponentHost,
    limiter::Limiter,
    outbound::Outbound,
    program::CoreProgram,
    set_end,
    stderr::Stderr,
    stdin::Stdin,
    stdout::{CHUNKS_AHEAD, Stdout},
    stop::{Stop, StopReason},
};
use crate::{epoch, memory::populate::populate};

/// The data of a core module's store.
pub struct CoreHost {
    pub(super) wasi: WasiP1Ctx,
    limiter: Limiter,
}

/// Where a command's standard streams lead.
pub enum Stdio {
    /// The request's body, the response's body, the log.
    Client(RequestBody),
    /// This process' own: `wasmbox run`.
    Inherit,
}

/// The reply's channel, shared with stdout, which starts the response when it can hold no more.
struct Output {
    stdout: Stdout,
    reply: Arc<std::sync::Mutex<Option<oneshot::Sender<Reply>>>>,
    body_fate: Option<BodyFate>,
}

impl Output {
    fn new(hold: usize, limit: u64, reply: oneshot::Sender<Reply>) -> Self {
        let reply = Arc::new(std::sync::Mutex::new(Some(reply)));
        let start = {
            let reply = reply.clone();
            Box::new(move |first: Bytes| {
                let (sender, rest) = mpsc::channel(CHUNKS_AHEAD);
                send(&reply, Reply::OutputStream { first, rest });
                sender
            })
        };
        Output { stdout: Stdout::new(hold, limit, start), reply, body_fate: None }
    }

    fn notes(&self) -> Notes {
        Notes {
            output_limit: self.stdout.limit_exceeded(),
            client_gone: self.stdout.client_gone(),
            body_limit: self.body_fate.as_ref().is_some_and(BodyFate::is_too_large),
            body_broken: self.body_fate.as_ref().is_some_and(BodyFate::is_broken),
        }
    }
}

fn send(reply: &std::sync::Mutex<Option<oneshot::Sender<Reply>>>, message: Reply) {
    let sender = reply.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(sender) = sender {
        // A receiver that is gone is a client that is gone: the stop signal tells the worker.
        let _ = sender.send(message);
    }
}

pub(super) fn run_core(
    program: &CoreProgram,
    mut invocation: Invocation,
    reply: oneshot::Sender<Reply>,
    epochs: &epoch::Awake,
    meter: Meter<'_>,
) {
    let mut output = Output::new(invocation.hold, invocation.max_output, reply);
    let wasi = match context(&mut invocation, &mut output) {
        Ok(mut wasi) => wasi.build_p1(),
        Err(failure) => return refuse(&invocation, &output, meter, failure),
    };
    let limiter = invocation.limiter();
    let engine = program.pre.module().engine();
    let mut store = bounded_store(engine, CoreHost { wasi, limiter }, |host| &mut host.limiter);
    let stdout = output.stdout.clone();
    let preallocated = usize::try_from(invocation.preallocated).unwrap_or(usize::MAX);
    let result = {
        let call = pin!(async {
            let result = call_start(program, &mut store, preallocated, &invocation.holding.stop).await;
            stdout.drain().await;
            result
        });
        bounded(&invocation, epochs).run(call, |_| stdout.flush_streamed())
    };
    finish(&invocation, &output, meter, &store.data().limiter, result);
}

async fn call_start(
    program: &CoreProgram,
    store: &mut Store<CoreHost>,
    preallocated: usize,
    stop: &Stop,
) -> wasmtime::Result<()> {
    let instance = program.pre.instantiate_async(&mut *store).await?;
    if preallocated > 0
        && let Some(memory) = instance.get_memory(&mut *store, "memory")
        && let Err(error) = populate(&*store, &memory, preallocated, stop)
    {
        tracing::debug!("memory is not allocated ahead: {error}");
    }
    let start = instance
        .get_module_export(&mut *store, &program.start)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("no _start"))?;
    start.typed::<(), ()>(&*store)?.call_async(store, ()).await
}

pub(super) fn run_component(
    program: &CommandPre<ComponentHost>,
    mut invocation: Invocation,
    reply: oneshot::Sender<Reply>,
    epochs: &epoch::Awake,
    meter: Meter<'_>,
) {
    let mut output = Output::new(invocation.hold, invocation.max_output, reply);
    let wasi = match context(&mut invocation, &mut output) {
        Ok(mut wasi) => wasi.build(),
        Err(failure) => return refuse(&invocation, &output, meter, failure),
    };
    let host = ComponentHost {
        wasi,
        table: ResourceTable::new(),
        http: wasmtime_wasi_http::WasiHttpCtx::new(),
        outbound: Outbound::new(invocation.grants.clone()),
        limiter: invocation.limiter(),
    };
    let mut store = bounded_store(program.engine(), host, |host| &mut host.limiter);
    let stdout = output.stdout.clone();
    let result = {
        let call = pin!(async {
            let result = async {
                let command = program.instantiate_async(&mut store).await?;
                command.wasi_cli_run().call_run(&mut store).await
            };
            // `Err` of `wasi:cli/run` is what `exit(1)` is to a core module.
            let result = match result.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(())) => Err(wasmtime_wasi::I32Exit(1).into()),
                Err(error) => Err(error),
            };
            stdout.drain().await;
            result
        });
        bounded(&invocation, epochs).run(call, |_| stdout.flush_streamed())
    };
    finish(&invocation, &output, meter, &store.data().limiter, result);
}

/// Records how the call ended and answers, unless the response has started.
fn finish(
    invocation: &Invocation,
    output: &Output,
    meter: Meter<'_>,
    limiter: &Limiter,
    result: Result<wasmtime::Result<()>, StopReason>,
) {
    let notes = output.notes();
    let failure = match &result {
        Err(reason) => Some(Failure::stopped(*reason, invocation.bounds())),
        Ok(Err(error)) => {
            tracing::debug!(id = %invocation.record.id, "guest call failed: {error:?}");
            classify(error, limiter, notes, invocation.bounds())
        }
        // A body that broke its limit ends the guest's input early; what it made of half an input is no answer.
        Ok(Ok(())) if notes.body_limit || notes.body_broken || notes.client_gone => {
            noted(limiter, notes, invocation.bounds())
        }
        Ok(Ok(())) => None,
    };
    let held = output.stdout.take_held();
    set_end(&invocation.record, meter.usage(Some(limiter)), failure.clone());
    if let Some(body) = held {
        send(&output.reply, failure.map_or(Reply::Output(body), Reply::Failed));
    }
}

/// Answers an invocation whose guest was not started.
fn refuse(invocation: &Invocation, output: &Output, meter: Meter<'_>, failure: Failure) {
    set_end(&invocation.record, meter.usage(None), Some(failure.clone()));
    send(&output.reply, Reply::Failed(failure));
}

/// The WASI context of a command: its own arguments, environment and streams, and what is granted; nothing else of the host.
fn context(invocation: &mut Invocation, output: &mut Output) -> Result<WasiCtxBuilder, Failure> {
    let input = std::mem::replace(
        &mut invocation.input,
        Input::Command { args: Vec::new(), env: Vec::new(), stdio: Stdio::Inherit },
    );
    let Input::Command { args, env, stdio } = input else {
        return Err(Failure::Internal { reason: "a command was given an HTTP request".into() });
    };
    let mut wasi = granted_context(&invocation.grants)?;
    wasi.args(&args).envs(&env);
    match stdio {
        Stdio::Inherit => {
            wasi.inherit_stdio();
        }
        Stdio::Client(body) => {
            output.body_fate = Some(body.fate());
            wasi.stdin(Stdin::new(body))
                .stdout(output.stdout.clone())
                .stderr(Stderr::new(invocation.record.function.name().clone(), invocation.record.id));
        }
    }
    Ok(wasi)
}

/// A WASI context with what is granted: no network, no directory, no variable beyond that.
pub(super) fn granted_context(grants: &Grants) -> Result<WasiCtxBuilder, Failure> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).envs(&grants.env);
    for preopen in &grants.preopens {
        let permissions = if preopen.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        wasi.preopened_dir(&preopen.host, &preopen.guest, permissions).map_err(|error| Failure::Internal {
            reason: format!("cannot open the granted directory {}: {error}", preopen.host.display()),
        })?;
    }
    Ok(wasi)
}
