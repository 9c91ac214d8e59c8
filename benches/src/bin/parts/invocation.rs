//! An invocation by the box: from what is admitted to the reply, on this thread, as the first slice of a call runs on its connection's.

use std::{sync::Arc, time::Instant};

use wasmtime::{Result, bail, ensure, error::Context};

use wasmbox::{
    config::Config,
    confined::optional_interfaces::OptionalInterfaces,
    engine::Engines,
    epoch::Ticker,
    exchange::{budget::Reservation, request_body::RequestBody},
    invocation::{CancelToken, Grants, InvocationId},
    memory::MemoryBudget,
    metrics::Metrics,
    sandbox::{
        self, Call, CommandInput, KeepLast, Program, Reply, Setup, Stderr, Stdio, Toolchain, outbound::InvocationAccess,
    },
    worker::run::Invocation,
};

use crate::{
    guest,
    meter::{Laps, Meter, Part},
};

/// What of a box runs guests, with a box's settings.
pub struct Sandboxes {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub engines: Engines,
    pub toolchain: Toolchain,
    ticker: Ticker,
    memory: Arc<MemoryBudget>,
    function: Arc<str>,
    grants: Arc<Grants>,
}

impl Sandboxes {
    /// # Errors
    /// If there are not enough addresses for its pools, or no thread.
    pub fn new(config: Config) -> Result<Sandboxes> {
        let metrics = Arc::new(Metrics::new());
        let engines = Engines::new(config.engine, false)?;
        let toolchain = Toolchain::new(engines.clone(), OptionalInterfaces::ALL)?;
        Ok(Sandboxes {
            config,
            ticker: Ticker::start(engines.clone())?,
            memory: MemoryBudget::new(metrics.growth_waits.clone(), metrics.evicted.clone()),
            metrics,
            engines,
            toolchain,
            function: "hello".into(),
            grants: Arc::default(),
        })
    }

    /// The parts of an invocation of `program`.
    ///
    /// # Errors
    /// If it fails, or gives no answer.
    pub fn measure(&self, meter: &Meter, program: &Program) -> Result<Vec<Part>> {
        let names = [
            "set up: limits, streams, memory's account",
            "run: store, instance, call, thread's CPU clock twice",
            "end: reply, drop the store, account",
        ];
        meter.laps(names, |laps| self.invoke(program, laps))
    }

    /// One invocation, to its end.
    ///
    /// # Errors
    /// As [`Self::measure`].
    pub fn invoke(&self, program: &Program, laps: &mut Laps<3>) -> Result<()> {
        let call = match program {
            Program::Core(core) => {
                let stdio = Stdio::Client(RequestBody::full(bytes::Bytes::new(), Reservation::default()));
                let args = vec![self.function.to_string()];
                Call::Core(core.clone(), CommandInput { args, env: Vec::new(), stdio })
            }
            Program::Http(http) => Call::Http(http.clone(), guest::request()?, None),
            Program::Command(_) => bail!("a component that is a command is not measured"),
        };
        laps.skip();
        let (reply, mut replied) = sandbox::reply();
        let mut invocation = Invocation::new(call, self.setup(), reply);
        laps.lap(0);
        let epochs = self.ticker.awake();
        laps.skip();
        let finished = loop {
            // One that was interrupted goes on.
            if let (_, Ok(finished)) = invocation.slice(&epochs, true) {
                break finished;
            }
        };
        laps.lap(1);
        invocation.end(finished, None);
        laps.lap(2);
        let Reply::Ended { outcome, answer, .. } = replied.try_recv().context("no reply")? else {
            bail!("an answer of six bytes was streamed");
        };
        ensure!(outcome.failure.is_none() && answer.is_some(), "the guest failed: {:?}", outcome.failure);
        Ok(())
    }

    fn setup(&self) -> Setup {
        let id = InvocationId::next();
        let function = self.function.clone();
        Setup {
            id,
            stderr: Stderr::new(function.clone(), id, KeepLast::Lines),
            outbound: Arc::new(InvocationAccess::none(id, function.clone())),
            function,
            grants: self.grants.clone(),
            config: Arc::default(),
            limits: self.config.defaults,
            deadline: Instant::now() + self.config.defaults.timeout.duration(),
            max_output: self.config.max_output.bytes(),
            max_body: self.config.max_body.bytes(),
            buffer_limit: self.config.output_buffer.as_usize(),
            preallocated: 0,
            files: None,
            keyvalue: None,
            reuse: None,
            memory: self.memory.reserve(id, CancelToken::default()),
        }
    }
}
