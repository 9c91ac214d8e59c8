//! The HTTP API: from a request to an answer, in one direction.
//!
//! Route and headers are parsed once into types that hold only valid values; then the module store, admission, a worker; and whatever
//! came of it becomes an answer here. No guest runs on this side, no file is read.
//!
//! - [`route`], [`arguments`], [`input`], [`cgi`]: reading requests
//! - [`answer`], [`problem`]: making answers; [`problem`] alone decides statuses

pub mod answer;
pub mod arguments;
pub mod cgi;
pub mod input;
pub mod problem;
pub mod route;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use http_body::Body;
use hyper::body::Incoming;

use self::{
    answer::{AnswerBody, INVOCATION_HEADERS, Streamed, TEXT, Timing, add_invocation_headers, strip_reserved, whole},
    input::{ReadAhead, read_ahead},
    problem::{Code, Problem},
    route::Route,
};
use crate::{
    access_log::Record,
    admission::Refused,
    core::Core,
    invocation::{CancelOnDrop, CancelReason, CancelToken, Failure, InvocationId, Outcome},
    limits::{Fraction, LimitCaps, Limits, RequestedLimits},
    sandbox::{self, Answer, Call, CommandInput, Program, Reply, RequestBody, Setup, Stdio, Stream},
    store::{
        function::Function,
        name::ModuleName,
        settings::{OutputMode, PathMode},
    },
    worker::Job,
};

/// What a command function answers to.
const COMMAND_METHODS: &str = "GET, HEAD, POST, OPTIONS";
/// What `/-/live` and `/-/ready` answer to.
const HEALTH_METHODS: &str = "GET, HEAD";
/// How long after the deadline the worker's own word is waited for, which says what the invocation has used.
const DEADLINE_GRACE: Duration = Duration::from_millis(500);

/// Bounds and names of the API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    pub defaults: Limits,
    pub caps: LimitCaps,
    /// Bytes of a request's body, and of an answer's.
    pub max_body: u64,
    pub max_output: u64,
    /// The share of `Memory-Request` that is made resident before a guest runs.
    pub preallocation: Option<Fraction>,
    /// The header `Pod`.
    pub pod: HeaderValue,
}

/// The API's state.
pub struct Api {
    pub settings: ApiSettings,
    pub core: Arc<Core>,
}

/// Both ends of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peers {
    pub server: SocketAddr,
    pub client: SocketAddr,
}

/// What the client's side holds of an invocation.
struct Exchange {
    arrived: Instant,
    function: Arc<Function>,
    record: Arc<Record>,
    cancel: CancelToken,
    /// Cancels the guest if the client leaves. Disarmed when there is none any more.
    on_drop: CancelOnDrop,
    timing: Timing,
}

impl Api {
    /// Answers one request. Dropping the future, when the client leaves, stops the function.
    pub async fn handle(&self, request: Request<Incoming>, peers: Peers) -> Response<AnswerBody> {
        let arrived = Instant::now();
        let request = request.map(|body| RequestBody::new(body, self.settings.max_body));
        let is_head = request.method() == Method::HEAD;
        let is_http1 = request.version() <= Version::HTTP_11;
        let mut response = self.route(request, peers, arrived).await;
        if is_http1 && self.core.is_draining() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if is_head { without_body(response) } else { response }
    }

    async fn route(&self, request: Request<RequestBody>, peers: Peers, arrived: Instant) -> Response<AnswerBody> {
        let result = match Route::parse(request.uri().path()) {
            Ok(Route::Module { name, below }) => return self.call(request, &name, below, peers, arrived).await,
            Ok(Route::Live | Route::Ready) if ![Method::GET, Method::HEAD].contains(request.method()) => {
                Err(Problem::method_not_allowed(request.method(), HEALTH_METHODS))
            }
            Ok(Route::Live) => Ok(whole(StatusCode::OK, TEXT, "live\n")),
            Ok(Route::Ready) => Ok(self.ready()),
            Ok(Route::Root) => Err(Problem::new(Code::ModuleNotFound, "name a function: /{module}")),
            // `OPTIONS *` is about the server itself.
            Err(_) if request.method() == Method::OPTIONS && request.uri().path() == "*" => Ok(allow(COMMAND_METHODS)),
            Err(error) => Err(error.into()),
        };
        result.unwrap_or_else(|problem| self.rejected(problem))
    }

    /// Answers a readiness probe of either port.
    pub fn ready(&self) -> Response<AnswerBody> {
        let report = self.core.readiness.probe(self.core.is_draining());
        let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        whole(status, TEXT, report.to_string())
    }

    /// Refuses a request that got no record: no function is known for it, or none may see it.
    fn rejected(&self, problem: Problem) -> Response<AnswerBody> {
        tracing::info!(target: "invocation", status = problem.code.status().as_u16(), code = problem.code.as_str(), failure = problem.detail);
        self.core.metrics.rejected.with_label_values(&[problem.code.as_str()]).inc();
        problem.into_response()
    }

    async fn call(
        &self,
        request: Request<RequestBody>,
        name: &ModuleName,
        below: bool,
        peers: Peers,
        arrived: Instant,
    ) -> Response<AnswerBody> {
        let (function, limits) = match self.find(&request, name, below, arrived).await {
            Ok(found) => found,
            Err(problem) => return self.rejected(problem),
        };
        if !matches!(function.program, Program::Http(_)) {
            if request.method() == Method::OPTIONS {
                return allow(COMMAND_METHODS);
            }
            if ![Method::GET, Method::HEAD, Method::POST].contains(request.method()) {
                return self.rejected(Problem::method_not_allowed(request.method(), COMMAND_METHODS));
            }
        }
        let id = InvocationId::next();
        let record = Record::new(id, function.metrics.clone(), arrived);
        let timing = Timing { compile: arrived.elapsed(), ..Timing::new(id) };
        record.compiled(timing.compile);
        let cancel = CancelToken::default();
        let on_drop = CancelOnDrop::new(cancel.clone());
        let mut exchange = Exchange { arrived, function, record, cancel, on_drop, timing };
        let status = request.body().status();
        let result = tokio::select! {
            biased;
            result = self.invoke(request, name, limits, peers, &mut exchange) => result,
            () = status.broken() => Err(Failure::BodyUnreadable { reason: "it broke off".into() }.into()),
        };
        match result {
            Ok(reply) => self.answer(reply, exchange),
            Err(problem) => self.failed(problem, exchange),
        }
    }

    /// The function, ready, and this request's limits.
    async fn find(
        &self,
        request: &Request<RequestBody>,
        name: &ModuleName,
        below: bool,
        arrived: Instant,
    ) -> Result<(Arc<Function>, Limits), Problem> {
        if self.core.is_draining() {
            return Err(Refused::Draining.into());
        }
        let requested = RequestedLimits::parse(request.headers(), &self.settings.caps)?;
        let patience = requested.timeout(&self.settings.defaults, &self.settings.caps);
        let function = self.core.store.get(name, arrived + patience.duration()).await?;
        if below && !matches!(function.program, Program::Http(_)) {
            let detail = format!("{name} is a command and has no paths below its name; call /{name}");
            return Err(Problem::new(Code::ModuleNotFound, detail));
        }
        let limits = requested.within(&function.limits, &function.caps)?;
        Ok((function, limits))
    }

    /// Reads what of the body must be read, waits for admission, and for the worker's reply.
    async fn invoke(
        &self,
        request: Request<RequestBody>,
        name: &ModuleName,
        limits: Limits,
        peers: Peers,
        exchange: &mut Exchange,
    ) -> Result<Reply, Problem> {
        let function = exchange.function.clone();
        let deadline = exchange.arrived + limits.timeout.duration();
        let call = call(request, name, &function, peers, deadline, limits).await?;
        let queued = Instant::now();
        let permit = self
            .core
            .admission
            .admit(&function.share, limits.memory, deadline)
            .await
            .map_err(|refused| self.refused(refused))?;
        exchange.timing.queue = queued.elapsed();
        exchange.record.admitted(exchange.timing.queue);
        let setup = Setup {
            id: exchange.timing.id,
            function: function.name.clone(),
            grants: function.grants.clone(),
            limits,
            deadline,
            max_output: self.settings.max_output,
            max_body: self.settings.max_body,
            buffer_limit: function.buffer_limit,
            preallocated: self.settings.preallocation.map_or(0, |share| share.of(limits.memory.bytes())),
            memory: self.core.memory.reserve(exchange.timing.id, exchange.cancel.clone()),
        };
        let (reply, mut replied) = sandbox::reply();
        let job = Job {
            call,
            setup,
            reply,
            permit,
            record: exchange.record.clone(),
            estimate: function.estimate.clone(),
            in_flight: function.metrics.in_flight().clone(),
        };
        self.core.workers.run(job).map_err(|error| {
            tracing::error!(
                "cannot start a worker thread: {error}; lower --max-invocations or raise the limit on threads"
            );
            Problem::new(Code::Internal, "no worker thread could be started")
        })?;
        let reply = match tokio::time::timeout_at(deadline.into(), &mut replied).await {
            Ok(reply) => reply,
            Err(_) => {
                // The worker sees its deadline itself, unless its guest is in a long instruction: then nobody waits for it but its permit.
                exchange.cancel.cancel(CancelReason::Deadline);
                tokio::time::timeout(DEADLINE_GRACE, replied)
                    .await
                    .map_err(|_| Failure::DeadlineExceeded { timeout_ms: limits.timeout.duration().as_millis() })?
            }
        };
        // The channel closes without a reply only if the worker panicked.
        reply.map_err(|_| Problem::new(Code::Internal, "the worker failed; the server's log says why"))
    }

    /// Counts what admission refused. It has a record, and so a line in the log, too.
    fn refused(&self, refused: Refused) -> Problem {
        let problem = Problem::from(refused);
        self.core.metrics.rejected.with_label_values(&[problem.code.as_str()]).inc();
        problem
    }

    fn answer(&self, reply: Reply, mut exchange: Exchange) -> Response<AnswerBody> {
        match reply {
            Reply::Ended { outcome, answer } => {
                exchange.on_drop.disarm();
                exchange.timing.ended(&outcome);
                match ended(outcome, answer, exchange.function.output) {
                    Ok(response) => self.finished(response, &exchange.record, &exchange.timing),
                    Err(problem) => self.failed(problem, exchange),
                }
            }
            Reply::Streaming { stream, cgroup, outcome } => {
                exchange.timing.cgroup = cgroup;
                match streaming(stream, exchange.function.output) {
                    Ok((response, source)) => {
                        let Exchange { record, cancel, on_drop, timing, .. } = exchange;
                        let streamed = Streamed { record: record.clone(), cancel, on_drop, outcome };
                        let body = AnswerBody::streaming(source, streamed, self.settings.max_output);
                        self.finished(response.map(|()| body), &record, &timing)
                    }
                    // The function still runs: dropping the exchange cancels it.
                    Err(problem) => self.failed(problem, exchange),
                }
            }
        }
    }

    fn failed(&self, problem: Problem, exchange: Exchange) -> Response<AnswerBody> {
        let code = problem.code;
        exchange.record.answered(code.status(), code.as_str());
        self.with_invocation_headers(problem.into_response(), &exchange.timing)
    }

    fn finished(&self, response: Response<AnswerBody>, record: &Record, timing: &Timing) -> Response<AnswerBody> {
        record.answered(response.status(), "");
        self.with_invocation_headers(response, timing)
    }

    fn with_invocation_headers(&self, mut response: Response<AnswerBody>, timing: &Timing) -> Response<AnswerBody> {
        let in_flight = self.core.admission.in_flight();
        add_invocation_headers(response.headers_mut(), timing, in_flight, &self.settings.pod);
        response
    }
}

/// The response of a guest that has ended.
fn ended(outcome: Outcome, answer: Option<Answer>, mode: OutputMode) -> Result<Response<AnswerBody>, Problem> {
    match (outcome.failure, answer) {
        (Some(failure), _) => Err(failure.into()),
        (None, Some(Answer::Output(output))) => {
            let (response, body) = output_head(mode, output)?;
            Ok(response.map(|()| AnswerBody::full(body)))
        }
        (None, Some(Answer::Response { head, .. })) if head.status.is_informational() => {
            Err(not_final(head.status).into())
        }
        (None, Some(Answer::Response { mut head, frames })) => {
            strip_reserved(&mut head.headers);
            Ok(Response::from_parts(head, AnswerBody::frames(frames)))
        }
        (None, None) => Err(Failure::NoResponse { reason: "it ended without one".into() }.into()),
    }
}

/// The head of a response that has begun, and where its body comes from.
fn streaming(stream: Stream, mode: OutputMode) -> Result<(Response<()>, answer::Source), Problem> {
    match stream {
        Stream::Output { first, rest } => {
            let (response, first) = output_head(mode, first)?;
            Ok((response, answer::Source::Output { first: Some(first), rest }))
        }
        Stream::Response(response) if response.status().is_informational() => Err(not_final(response.status()).into()),
        Stream::Response(response) => {
            let (mut head, body) = response.into_parts();
            strip_reserved(&mut head.headers);
            Ok((Response::from_parts(head, ()), answer::Source::Guest(body)))
        }
    }
}

/// The program of `function` with its input; reads what of the body must be read before.
async fn call(
    request: Request<RequestBody>,
    name: &ModuleName,
    function: &Function,
    peers: Peers,
    deadline: Instant,
    limits: Limits,
) -> Result<Call, Problem> {
    let (mut head, body) = request.into_parts();
    let timeout_ms = limits.timeout.duration().as_millis();
    match &function.program {
        Program::Core(program) => {
            let body = read_ahead(body, true, deadline, timeout_ms).await?;
            Ok(Call::Core(program.clone(), command_input(&head, name, function, body, peers)?))
        }
        Program::Command(program) => {
            let body = read_ahead(body, true, deadline, timeout_ms).await?;
            Ok(Call::Command(program.clone(), command_input(&head, name, function, body, peers)?))
        }
        Program::Http(program) => {
            let body = read_ahead(body, false, deadline, timeout_ms).await?;
            if function.path == PathMode::Stripped {
                head.uri = stripped(&head.uri, name);
            }
            // HTTP/1.0 may come without a host, which the guest is promised.
            if head.uri.authority().is_none() && !head.headers.contains_key(header::HOST) {
                head.headers.insert(header::HOST, HeaderValue::from_static("localhost"));
            }
            Ok(Call::Http(program.clone(), Request::from_parts(head, body.body)))
        }
    }
}

fn not_final(status: StatusCode) -> Failure {
    Failure::NoResponse { reason: format!("status {} is no final answer", status.as_u16()) }
}

/// Arguments, environment and standard input of a command.
fn command_input(
    head: &Parts,
    name: &ModuleName,
    function: &Function,
    body: ReadAhead,
    peers: Peers,
) -> Result<CommandInput, Problem> {
    let mut args = vec![name.to_string()];
    args.extend(function.grants.args.iter().cloned());
    if let Some(parameter) = body.parameter {
        args.push(arguments::checked(parameter, args.len())?);
    }
    args.extend(arguments::arguments(head.uri.query().unwrap_or_default())?);
    let length = body.body.size_hint().exact().filter(|length| *length > 0 || head.method == Method::POST);
    let env = if function.program.reads_environment() {
        cgi::environment(head, name.as_str(), length, peers.server, peers.client)
    } else {
        Vec::new()
    };
    Ok(CommandInput { args, env, stdio: Stdio::Client(body.body) })
}

/// `/module/path?query` as `/path?query`.
fn stripped(uri: &http::Uri, name: &ModuleName) -> http::Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(name.as_str())).unwrap_or(path);
    let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = rest.parse().ok();
    http::Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

/// The head of a command's answer, and what of the output is body.
fn output_head(mode: OutputMode, output: Bytes) -> Result<(Response<()>, Bytes), Problem> {
    let mut response = Response::new(());
    let body = match mode {
        OutputMode::Body => {
            // Text if it is text; and what it is must not be guessed by browsers, since all functions share one origin.
            let is_text = match std::str::from_utf8(&output) {
                Ok(_) => true,
                // A streamed answer may be cut in the middle of a character.
                Err(error) => error.error_len().is_none(),
            };
            let content_type = if is_text { TEXT } else { "application/octet-stream" };
            *response.headers_mut() = HeaderMap::with_capacity(INVOCATION_HEADERS + 2);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            output
        }
        OutputMode::Cgi => {
            let (mut head, body) = cgi::split_head(output).map_err(|reason| Failure::BadHeader { reason })?;
            strip_reserved(&mut head.headers);
            // A wrong length would break the connection; the right one is known or the answer is chunked.
            head.headers.remove(header::CONTENT_LENGTH);
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            body
        }
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok((response, body))
}

/// The answer to HEAD: its body is left out, its length is not. (Over HTTP/2, hyper would send the body.)
pub fn without_body(mut response: Response<AnswerBody>) -> Response<AnswerBody> {
    if let Some(length) = response.body().size_hint().exact()
        && !response.headers().contains_key(header::CONTENT_LENGTH)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.map(|_| AnswerBody::full(Bytes::new()))
}

fn allow(methods: &'static str) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}
