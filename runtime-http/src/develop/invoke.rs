//! `wasmbox invoke`: one call, of a box that runs or of one that is started for it.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    local_box::LocalBox,
    palette::Palette,
    request::CallArgs,
    steps::Interrupts,
    summary::{Problem, Stderr, Summary},
};
use crate::{
    client::{self, ClientError},
    config::Settings,
    deploy::token::TokenArgs,
    function_log::line::Shown,
    store::{file::FunctionsDir, listing::ListedLimits, name::ModuleName},
};

/// A thread of the box's own collects lines of functions, some milliseconds after they were written.
const LOG_DELAY: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub struct InvokeArgs {
    /// The function, and what follows its name in the request [default: the one of --file]
    #[arg(value_name = "NAME[/PATH][?QUERY]", required_unless_present = "file")]
    pub target: Option<String>,
    #[command(flatten)]
    pub call: CallArgs,
    /// Module, or directory of functions, to start a box with for this call, instead of calling one that runs
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "address", value_hint = clap::ValueHint::AnyPath)]
    pub file: Option<PathBuf>,
    /// The box's function port as HOST:PORT or http://HOST:PORT [default: where `serve` would listen]
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    #[command(flatten)]
    pub token: TokenArgs,
    /// Print the answer, and nothing on standard error unless it is an error
    #[arg(long, short)]
    pub quiet: bool,
    /// Whether the summary is coloured
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: clap::ColorChoice,
}

/// How long the log may take to tell of a call that is over.
const LOG_TIME: Duration = Duration::from_secs(5);

/// Calls, prints the answer on standard output and what it took on standard error. Exit code 1 for an error's status.
///
/// # Errors
/// If there is no answer.
pub fn invoke(arguments: &InvokeArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        match &arguments.file {
            Some(file) => of_file(arguments, file).await,
            None => of_running(arguments, settings).await,
        }
    });
    // Standard input may still be read.
    runtime.shutdown_background();
    code
}

async fn of_running(arguments: &InvokeArgs, settings: &Settings) -> anyhow::Result<ExitCode> {
    let address = match &arguments.address {
        Some(address) => client::host_and_port(address).to_owned(),
        None => {
            let places = &settings.places;
            client::reachable(places.host(), places.port())
        }
    };
    let target = arguments.target.as_deref().unwrap_or_default();
    // What variables say is for one's own box: the token is not sent to any other that is called.
    let is_meant = arguments.address.is_none() || arguments.token.is_said();
    let token = if is_meant { arguments.token.token()? } else { None };
    let mut summary = call(arguments, &address, target).await?;
    // It may be of another machine, and of no interest then.
    let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
    let admin = client::address(host, settings.admin.port());
    summary.limited(&arguments.call.limits, usual_limits(&admin, target).await);
    if let (Some(token), Some(id)) = (token, &summary.id) {
        tokio::time::sleep(LOG_DELAY).await;
        summary.stderr = logged(&admin, &token, target, id).await;
    }
    Ok(show(&summary, arguments))
}

/// What the box's log has of the standard error of invocation `id`.
async fn logged(admin: &str, token: &str, target: &str, id: &str) -> Stderr {
    let Some(name) = function(target) else { return Stderr::Unknown("no function has this name".to_owned()) };
    let request = Request::get(format!("/functions/{name}/logs"));
    let (status, body) =
        match client::ask(admin, request.header(header::AUTHORIZATION, format!("Bearer {token}"))).await {
            Ok(answer) => answer,
            Err(error) => return Stderr::Unknown(format!("{admin} does not tell: {error}")),
        };
    if status != StatusCode::OK {
        let problem = serde_json::from_slice::<Problem>(&body);
        return Stderr::Unknown(problem.map_or_else(|_| format!("{admin} answers {status}"), |problem| problem.detail));
    }
    let lines = body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Shown<'_>>(line).ok());
    let own = lines.filter(|line| line.id.as_deref() == Some(id));
    Stderr::Lines(own.filter_map(|line| line.not_logged().or(line.stderr.map(Cow::into_owned))).collect())
}

/// The function that a target names.
fn function(target: &str) -> Option<ModuleName> {
    target.trim_start_matches('/').split(['/', '?']).next()?.parse().ok()
}

async fn of_file(arguments: &InvokeArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let (functions, name) = functions_of(file)?;
    let target = match (&arguments.target, name) {
        (Some(target), _) => target.clone(),
        (None, Some(name)) => name,
        (None, None) => anyhow::bail!("{} is a directory: say which function of it, NAME --file {0}", file.display()),
    };
    let mut interrupts = Interrupts::new()?;
    let flags = [
        "--host=127.0.0.1",
        "--port=0",
        "--admin-host=127.0.0.1",
        "--admin-port=0",
        "--qp-host=none",
        "--stderr-in-errors=false",
    ];
    let flags = flags.map(Into::into);
    let mut local = tokio::select! {
        started = LocalBox::start(&functions, &flags) => started?,
        code = interrupts.next() => return Ok(ExitCode::from(code)),
    };
    let address = local.address.clone();
    let called = tokio::select! {
        called = with_log(arguments, &mut local, &address, &target) => called,
        code = interrupts.next() => {
            local.end().await?;
            return Ok(ExitCode::from(code));
        }
    };
    local.end().await?;
    Ok(show(&called?, arguments))
}

/// The directory to serve, and the name of the function if it is one.
fn functions_of(file: &Path) -> anyhow::Result<(PathBuf, Option<String>)> {
    let metadata = std::fs::metadata(file).with_context(|| format!("--file {}", file.display()))?;
    if metadata.is_dir() {
        return Ok((file.to_owned(), None));
    }
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let parsed: ModuleName = name.parse().with_context(|| format!("--file {}", file.display()))?;
    let directory = file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    // As it will be called, without its ending, unless that means another file.
    let stem = name.rsplit_once('.').and_then(|(stem, _)| stem.parse::<ModuleName>().ok());
    let meant = stem.filter(|stem| {
        let first = FunctionsDir::candidates(stem).find(|candidate| directory.join(candidate).exists());
        first.is_some_and(|first| first == name)
    });
    Ok((directory.to_owned(), Some(meant.unwrap_or(parsed).to_string())))
}

/// A call of a box of one's own, whose log is read meanwhile.
async fn with_log(
    arguments: &InvokeArgs,
    local: &mut LocalBox,
    address: &str,
    target: &str,
) -> anyhow::Result<Summary> {
    let mut stderr = Vec::new();
    let mut record = None;
    let mut summary = {
        let mut called = std::pin::pin!(call(arguments, address, target));
        loop {
            tokio::select! {
                called = &mut called => break called?,
                line = local.line() => {
                    let line = line?;
                    stderr.extend(line.stderr().map(|(_, text)| text.to_owned()));
                    record = line.call().or(record);
                }
            }
        }
    };
    // Of a request that was refused there is none.
    let rest = async {
        while (summary.id.is_some() || summary.status.is_none()) && record.is_none() {
            let Ok(line) = local.line().await else { break };
            stderr.extend(line.stderr().map(|(_, text)| text.to_owned()));
            record = line.call();
        }
    };
    let _ = timeout(LOG_TIME, rest).await;
    if let Some(record) = &record {
        summary.logged(record);
    }
    summary.stderr = Stderr::Lines(stderr);
    summary.limited(&arguments.call.limits, usual_limits(&local.admin, target).await);
    Ok(summary)
}

/// The limits of requests that name none, of the function that was just called, if the admin port tells.
async fn usual_limits(admin: &str, target: &str) -> Option<ListedLimits> {
    #[derive(Deserialize)]
    struct Listed {
        file: String,
        limits: Option<ListedLimits>,
    }
    let (_, body) = client::get(admin, "/functions").await.ok()?;
    let listed: Vec<Listed> = serde_json::from_slice(&body).ok()?;
    let name = function(target)?;
    let is_it = |listed: &Listed| FunctionsDir::candidates(&name).any(|file| file == listed.file);
    listed.into_iter().find(is_it)?.limits
}

/// Calls, and passes the answer on as it comes; but an error of the box's own, which becomes part of the summary.
async fn call(arguments: &InvokeArgs, address: &str, target: &str) -> anyhow::Result<Summary> {
    let request = arguments.call.request(address, target)?;
    let started = Instant::now();
    let answer = match client::send(address, request).await {
        // The function failed when its answer had begun, before any of that was sent.
        Err(ClientError::Http(error)) if error.is_incomplete_message() => {
            let broken_off = Some(error.to_string());
            return Ok(Summary { elapsed: started.elapsed(), broken_off, ..Summary::default() });
        }
        answer => answer,
    };
    let answer = answer.with_context(|| {
        format!(
            "the box at {address} does not answer; is `wasmbox serve` or `wasmbox dev` running? --address HOST:PORT names another, \
             --file FILE starts one for this call"
        )
    })?;
    let (head, body) = answer.into_parts();
    let mut summary = Summary::new(head.status, &head.headers);
    if is_problem(&head.headers) {
        let document = body.collect().await?.to_bytes();
        summary.problem = Some(serde_json::from_slice::<Problem>(&document)?);
    } else {
        summary.broken_off = pass_on(body).await?;
    }
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// A function's own answer has no such header.
fn is_problem(headers: &HeaderMap) -> bool {
    let is_document = headers.get(header::CONTENT_TYPE).is_some_and(|value| value == "application/problem+json");
    is_document && headers.contains_key("wasmbox-error")
}

/// Gives the reason, if the answer ended early.
async fn pass_on(mut body: Incoming) -> anyhow::Result<Option<String>> {
    let mut output = io::stdout();
    let mut last = b'\n';
    let mut broken_off = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                broken_off = Some(error.to_string());
                break;
            }
        };
        if let Ok(data) = frame.into_data() {
            last = data.last().copied().unwrap_or(last);
            output.write_all(&data).and_then(|()| output.flush()).context("standard output")?;
        }
    }
    if last != b'\n' && output.is_terminal() {
        writeln!(output)?;
    }
    Ok(broken_off)
}

fn show(summary: &Summary, arguments: &InvokeArgs) -> ExitCode {
    let is_error = summary.status.is_none_or(|status| status.is_client_error() || status.is_server_error());
    let is_error = is_error || summary.broken_off.is_some();
    if is_error || !arguments.quiet {
        let text = summary.shown(Palette::new(arguments.color, &io::stderr()));
        // Whoever reads it may have left: the exit code is still true.
        let _ = io::stderr().write_all(text.as_bytes());
    }
    if is_error { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
