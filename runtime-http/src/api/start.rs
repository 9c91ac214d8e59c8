//! How an invocation starts: it is admitted and handed to the workers, or joins others in an instance.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::Request;

use super::{Api, Exchange, problem::Code, problem::Problem};
use crate::{
    admission::{Permit, Refused},
    exchange::{budget::ClientBudgets, request_body::RequestBody},
    invocation::CancelToken,
    limits::Limits,
    sandbox::{Call, Carriers, InstanceUse, Joined, Joining, ReplySender, program::HttpComponent},
    worker::{InFlight, Job, OneRequest, Serves, SharingRequest, quota::Spending, run::Invocation},
};

/// What one request starts with.
pub(super) struct Start {
    pub limits: Limits,
    pub deadline: Instant,
    /// For an answer that is not delivered when its guest has ended.
    pub budgets: Arc<ClientBudgets>,
    pub reply: ReplySender,
}

impl Api {
    /// Has `call` run, as soon as it is admitted.
    pub(super) async fn start(&self, start: Start, call: Call, exchange: &mut Exchange) -> Result<(), Problem> {
        let Start { limits, deadline, budgets, reply } = start;
        let function = exchange.function.clone();
        let queued = Instant::now();
        let permit = self.core.admission.admit(&function.share, limits.memory, deadline).await;
        let permit = self.admitted(permit, queued, exchange)?;
        let (spending, waited) = self.spending(&limits, deadline, exchange).await?;
        let cancel = exchange.cancel.clone();
        let (call, setup) = self.setup(call, limits, deadline, &cancel, exchange);
        let request = OneRequest {
            permit,
            record: exchange.record.clone(),
            estimate: function.estimate.clone(),
            budgets,
            in_flight: InFlight::new(function.metrics.clone()),
        };
        let invocation = Invocation::new(call, setup, reply).after(waited);
        self.run(Job { invocation, spending, of: Serves::One(request) })
    }

    /// Has `request` join others in an instance, as soon as one takes it; or gets it an instance that others may join, as soon as it is admitted.
    pub(super) async fn share(
        &self,
        start: Start,
        carriers: &Arc<Carriers>,
        program: Arc<HttpComponent>,
        request: Request<RequestBody>,
        exchange: &mut Exchange,
    ) -> Result<(), Problem> {
        let Start { limits, deadline, budgets, reply } = start;
        let function = exchange.function.clone();
        let queued = Instant::now();
        let mut joining = Box::new(Joining {
            request,
            reply,
            cancel: exchange.cancel.clone(),
            deadline,
            budgets,
            observer: Box::new(SharingRequest {
                record: exchange.record.clone(),
                estimate: function.estimate.clone(),
                in_flight: InFlight::new(function.metrics.clone()),
                reuse: function.reuse(&self.core.instances),
            }),
        });
        let permit = {
            let mut admitted = pin!(self.core.admission.admit(&function.share, limits.memory, deadline));
            let mut is_told = false;
            loop {
                let mut room = pin!(carriers.room());
                room.as_mut().enable();
                let is_unlike;
                (joining, is_unlike) = match carriers.join(joining, &limits).await {
                    Joined::Yes => {
                        exchange.timing.queue = queued.elapsed();
                        exchange.record.admitted(queued, exchange.timing.queue);
                        exchange.got(InstanceUse::Joined);
                        return Ok(());
                    }
                    Joined::Full(same) => (same, false),
                    Joined::Unlike(same) => (same, true),
                };
                // A place that is not for it is for somebody else who waits.
                let passes_on = is_told && is_unlike;
                tokio::select! {
                    biased;
                    permit = &mut admitted => break permit,
                    () = carriers.pass_room_on(), if passes_on => is_told = false,
                    () = room, if !passes_on => is_told = true,
                }
            }
        };
        let permit = Arc::new(self.admitted(permit, queued, exchange)?);
        let (spending, waited) = self.spending(&limits, deadline, exchange).await?;
        // Others may come for as long as one of them may take.
        let until = deadline + limits.timeout.duration();
        let cancel = CancelToken::default();
        let guard = carriers.carry(*joining, limits, until, cancel.clone(), permit.clone());
        let call = Call::Shared(program, guard, None);
        let (call, setup) = self.setup(call, limits, until, &cancel, exchange);
        // Its own, which nobody reads: each request in it has another.
        let (reply, _) = crate::sandbox::reply();
        let invocation = Invocation::new(call, setup, reply).after(waited);
        self.run(Job { invocation, spending, of: Serves::Several(permit) })
    }

    fn admitted(
        &self,
        permit: Result<Permit, Refused>,
        queued: Instant,
        exchange: &mut Exchange,
    ) -> Result<Permit, Problem> {
        let permit = permit.map_err(|refused| self.not_admitted(refused))?;
        exchange.timing.queue = queued.elapsed();
        exchange.record.admitted(queued, exchange.timing.queue);
        Ok(permit)
    }

    async fn spending(
        &self,
        limits: &Limits,
        deadline: Instant,
        exchange: &Exchange,
    ) -> Result<(Spending, Duration), Problem> {
        tokio::select! {
            biased;
            spending = self.core.workers.spend(&exchange.function.cpu_budget, limits.cpu_quota, deadline) => Ok(spending),
            () = self.core.over.cancelled() => Err(self.not_admitted(Refused::Draining)),
        }
    }

    fn run(&self, job: Job) -> Result<(), Problem> {
        self.core.workers.run(job).map_err(|error| {
            tracing::error!(
                "cannot start a worker thread: {error}; lower --max-invocations or raise the limit on threads"
            );
            Problem::new(Code::Internal, "no worker thread could be started")
        })
    }
}
