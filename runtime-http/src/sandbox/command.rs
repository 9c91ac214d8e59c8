//! Runs commands: `_start` of a core module, `wasi:cli/run` of a component.

use std::{os::fd::AsRawFd, pin::pin};

use bytes::Bytes;
use tokio::sync::mpsc;
use wasmtime::Store;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, WasiView, p1::WasiP1Ctx};

use super::{
    Answer, Ended, Left, Remains, ReplySender, Setup, Stream, bounded_store,
    component::ComponentHost,
    executor::bounded,
    failure::{LimitHits, cancelled, classify, limit_hit},
    handles,
    limiter::Limiter,
    outbound::{CurrentOutbound, Outbound},
    p3,
    populate::populate,
    program::{CommandComponent, CoreProgram},
    stdin::Stdin,
    stdout::{CHUNKS_AHEAD, Room, Stdout},
};
use crate::{
    exchange::request_body::{BodyStatus, RequestBody},
    invocation::{CancelReason, CancelToken, Failure},
};

/// The data of a core module's store.
pub struct CoreHost {
    wasi: WasiP1Ctx,
    pub(super) limiter: Limiter,
}

impl CoreHost {
    /// For a host call. One that the box holds too much for has nothing left.
    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        if self.limiter.overdraws() {
            self.wasi = WasiCtxBuilder::new().build_p1();
        }
        &mut self.wasi
    }
}

/// Where a command's standard streams lead.
pub enum Stdio {
    /// The request's body, the response's body, the log.
    Client(RequestBody),
    /// This process' own: `wasmbox run`.
    Inherit,
}

/// What a command is given.
pub struct CommandInput {
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub stdio: Stdio,
}

/// What a command writes and reads, seen from outside.
struct Streams {
    stdout: Stdout,
    body: Option<BodyStatus>,
}

impl Streams {
    fn new(setup: &Setup, reply: &ReplySender) -> Self {
        let reply = reply.clone();
        let start = Box::new(move |first: Bytes| {
            let (sender, rest) = mpsc::channel(CHUNKS_AHEAD);
            reply.stream(Stream::Output { first, rest });
            sender
        });
        let room = Room { memory: setup.memory.clone(), most: setup.most_memory() };
        Streams { stdout: Stdout::new(setup.buffer_limit, setup.max_output, room, start), body: None }
    }

    fn limit_hits(&self) -> LimitHits {
        LimitHits {
            output_limit: self.stdout.limit_exceeded(),
            client_gone: self.stdout.client_gone(),
            body: self.body.as_ref().and_then(BodyStatus::end),
        }
    }
}

pub(super) async fn run_core(program: &CoreProgram, input: CommandInput, setup: &Setup, reply: &ReplySender) -> Ended {
    let mut streams = Streams::new(setup, reply);
    let mut wasi = match context(input, setup, &mut streams) {
        Ok(mut wasi) => wasi.build_p1(),
        Err(failure) => return Ended::not_started(failure),
    };
    WasiView::ctx(&mut wasi).table.set_max_capacity(handles(setup));
    let engine = program.pre.module().engine();
    let mut store = bounded_store(engine, CoreHost { wasi, limiter: setup.limiter() }, |host| &mut host.limiter);
    let stdout = streams.stdout.clone();
    let preallocated = usize::try_from(setup.preallocated).unwrap_or(usize::MAX);
    let result = {
        let call = pin!(async {
            setup.reserve_overhead().await;
            let result = call_start(program, &mut store, preallocated, &setup.memory.cancel).await;
            stdout.drain().await;
            result
        });
        bounded(setup, call, |_| stdout.flush_streamed()).await
    };
    let result = judge(setup, &streams, &store.data().limiter, result);
    Ended { result, memory_peak: store.data().limiter.peak(), remains: Remains::of(Left::Core(store)) }
}

async fn call_start(
    program: &CoreProgram,
    store: &mut Store<CoreHost>,
    preallocated: usize,
    cancel: &CancelToken,
) -> wasmtime::Result<()> {
    let instance = program.pre.instantiate_async(&mut *store).await?;
    if preallocated > 0
        && let Some(memory) = instance.get_memory(&mut *store, "memory")
        && let Err(error) = populate(&*store, &memory, preallocated, cancel)
    {
        tracing::debug!("memory is not allocated ahead: {error}");
    }
    let start = instance
        .get_module_export(&mut *store, &program.start)
        .and_then(wasmtime::Extern::into_func)
        .ok_or_else(|| wasmtime::Error::msg("no _start"))?;
    start.typed::<(), ()>(&*store)?.call_async(store, ()).await
}

pub(super) async fn run_component(
    program: &CommandComponent,
    input: CommandInput,
    setup: &Setup,
    reply: &ReplySender,
) -> Ended {
    let mut streams = Streams::new(setup, reply);
    let wasi = match context(input, setup, &mut streams) {
        Ok(mut wasi) => wasi.build(),
        Err(failure) => return Ended::not_started(failure),
    };
    let engine = match program {
        CommandComponent::P2(command) => command.engine(),
        CommandComponent::P3(command) => command.engine(),
    };
    let mut store = bounded_store(engine, ComponentHost::new(wasi, None, setup), |host| &mut host.limiter);
    let stdout = streams.stdout.clone();
    let result = {
        let call = pin!(async {
            setup.reserve_overhead().await;
            let result = async {
                match program {
                    CommandComponent::P2(command) => {
                        let command = command.instantiate_async(&mut store).await?;
                        command.wasi_cli_run().call_run(&mut store).await
                    }
                    CommandComponent::P3(command) => p3::run(command, &mut store).await,
                }
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
        bounded(setup, call, |_| stdout.flush_streamed()).await
    };
    let result = judge(setup, &streams, &store.data().limiter, result);
    Ended { result, memory_peak: store.data().limiter.peak(), remains: Remains::of(Left::Component(store)) }
}

/// Decides how the call ended; gives the output, unless it was streamed.
fn judge(
    setup: &Setup,
    streams: &Streams,
    limiter: &Limiter,
    result: Result<wasmtime::Result<()>, CancelReason>,
) -> Result<Option<Answer>, Failure> {
    let hits = streams.limit_hits();
    let failure = match &result {
        _ if limiter.overdrawn().is_some() => {
            limiter.overdrawn().map(|(reason, bytes)| cancelled(reason, bytes, setup.bounds()))
        }
        Err(reason) => Some(cancelled(*reason, setup.memory.cost(), setup.bounds())),
        Ok(Err(error)) => {
            tracing::debug!(id = %setup.id, "guest call failed: {error:?}");
            classify(error, limiter, hits, setup.bounds())
        }
        // A body that broke its limit ends the guest's input early; what it made of half an input is no answer. Nor is half an output, of which
        // WASI 0.3 tells a guest by an error that it may not look at.
        Ok(Ok(())) if hits.body.is_some() || hits.output_limit || hits.client_gone => {
            limit_hit(limiter, hits, setup.bounds())
        }
        Ok(Ok(())) => None,
    };
    match failure {
        Some(failure) => Err(failure),
        None => Ok(streams.stdout.take_buffered().map(Answer::Output)),
    }
}

/// The WASI context of a command: its own arguments, environment and streams, and what is granted; nothing else of the host.
fn context(input: CommandInput, setup: &Setup, streams: &mut Streams) -> Result<WasiCtxBuilder, Failure> {
    let CommandInput { args, env, stdio } = input;
    let (mut wasi, _) = granted_context(setup)?;
    wasi.args(&args).envs(&env);
    match stdio {
        Stdio::Inherit => {
            wasi.inherit_stdio();
        }
        Stdio::Client(body) => {
            streams.body = Some(body.status());
            wasi.stdin(Stdin::new(body)).stdout(streams.stdout.clone()).stderr(setup.stderr.clone());
        }
    }
    Ok(wasi)
}

/// The most bytes of random numbers at once, as for `crypto.getRandomValues` in browsers: they are made in the box's memory.
const MOST_RANDOM_BYTES: u64 = 64 << 10;

/// A WASI context with what is granted: no connection, no directory, no variable beyond that. Second, who is asked before its sockets are used,
/// if it may have some.
pub(super) fn granted_context(setup: &Setup) -> Result<(WasiCtxBuilder, Option<CurrentOutbound>), Failure> {
    let grants = &setup.grants;
    let mut wasi = WasiCtxBuilder::new();
    wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false).envs(&grants.env);
    // Most functions have no way out.
    let outbound = (!grants.outbound.is_empty()).then(|| Outbound::new(setup));
    let for_sockets = outbound.filter(Outbound::has_sockets).map(CurrentOutbound::new);
    if let Some(current) = &for_sockets {
        wasi.allow_tcp(true).socket_addr_check(current.socket_check());
    }
    wasi.max_random_size(MOST_RANDOM_BYTES);
    for preopen in &grants.preopens {
        let permissions = if preopen.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        let failure = |error: &dyn std::fmt::Display| {
            // The host's path is for the operator alone.
            tracing::warn!(
                function = %setup.function, id = %setup.id, directory = %preopen.directory,
                "cannot open a granted directory: {error}"
            );
            Failure::PreopenUnavailable { guest: preopen.guest.clone(), reason: error.to_string() }
        };
        let directory = preopen.directory.open().map_err(|error| failure(&error))?;
        // wasmtime opens a path; this one is what was opened just now, whatever became of its name.
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        wasi.preopened_dir(path, &preopen.guest, permissions).map_err(|error| failure(&error))?;
    }
    Ok((wasi, for_sockets))
}
