//! One admitted invocation, and what has to be given back when it has ended.

use std::{sync::Arc, time::Duration};

use super::{
    estimate::ExecutionEstimate,
    quota::Spending,
    run::{Finished, Invocation},
};
use crate::{
    access_log::Record,
    admission::Permit,
    exchange::{
        budget::{ClientBudgets, Hold},
        request_body::FRAME,
    },
    invocation::Outcome,
    metrics::FunctionMetrics,
    sandbox::{InstanceUse, Observer, Reuse},
};

/// One admitted invocation. It is dropped on the thread on which it ends, in a panic, too.
pub struct Job {
    pub invocation: Invocation,
    /// What it may use of its function's budget.
    pub spending: Spending,
    pub of: Serves,
}

/// Whom an invocation is for.
pub enum Serves {
    One(OneRequest),
    /// Several requests, which have all else themselves.
    Several(Arc<Permit>),
}

/// What one request has that nobody shares its invocation with.
pub struct OneRequest {
    pub permit: Permit,
    pub record: Arc<Record>,
    pub estimate: Arc<ExecutionEstimate>,
    /// For an answer that is not delivered when it has ended.
    pub budgets: Arc<ClientBudgets>,
    /// Counts it while it runs.
    pub in_flight: InFlight,
}

/// What one request has that shares its invocation with others.
pub struct SharingRequest {
    pub record: Arc<Record>,
    pub estimate: Arc<ExecutionEstimate>,
    pub in_flight: InFlight,
    /// Where instances are counted.
    pub reuse: Option<Reuse>,
}

impl Observer for SharingRequest {
    fn begins(&mut self, joins: bool) {
        self.in_flight.begin();
        if let Some(reuse) = self.reuse.take().filter(|_| joins) {
            // Here, since its client may leave before it is told.
            self.record.instance(InstanceUse::Joined.as_str());
            reuse.joined();
        }
    }

    fn ends(self: Box<Self>, outcome: &Outcome) {
        self.estimate.add(outcome.usage.execution);
        self.record.ended(outcome.clone());
    }
}

/// Counts one invocation from [`InFlight::begin`] until it is dropped.
pub struct InFlight {
    function: Arc<FunctionMetrics>,
    begun: bool,
}

impl InFlight {
    pub fn new(function: Arc<FunctionMetrics>) -> InFlight {
        InFlight { function, begun: false }
    }

    pub(super) fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.function.begin();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.begun {
            self.function.end();
        }
    }
}

impl Job {
    /// Whether it may begin on the thread that has admitted it.
    pub(super) fn fits_in_a_slice(&self) -> bool {
        let Serves::One(request) = &self.of else { return false };
        !request.permit.has_waited()
            && self.spending.is_accounted()
            && request.estimate.fits_in_a_slice()
            && self.invocation.fits_in_a_slice()
    }

    /// How long it usually takes, if that is known.
    pub(super) fn usually(&self) -> Option<Duration> {
        match &self.of {
            Serves::One(request) => request.estimate.get(),
            Serves::Several(_) => None,
        }
    }

    /// Its guest begins.
    pub(super) fn begin(&mut self) {
        if let Serves::One(request) = &mut self.of {
            request.in_flight.begin();
        }
    }

    /// Tells whoever waits, and gives back what it had.
    pub(super) fn end(self, mut finished: Finished) {
        let Job { invocation, spending, of } = self;
        let request = match of {
            Serves::One(request) => request,
            Serves::Several(permit) => {
                spending.end(finished.outcome.usage.cpu);
                if let Some(failure) = &finished.outcome.failure {
                    let (id, function) = (invocation.setup().id, &invocation.setup().function);
                    tracing::warn!(%id, %function, "a shared instance failed while it served nobody: {failure}");
                }
                invocation.keep_instance(&mut finished);
                invocation.end(finished, None);
                drop(permit);
                return;
            }
        };
        let OneRequest { permit, record, estimate, budgets, in_flight } = request;
        estimate.add(finished.outcome.usage.execution);
        // Before its client can come again.
        spending.end(finished.outcome.usage.cpu);
        record.ended(finished.outcome.clone());
        // A small answer is included in what a connection may hold. One for which there is no room keeps the permit until it is delivered, and
        // stays in the account of its invocation.
        let bytes = invocation.undelivered(&finished);
        let mut permit = Some(permit);
        let hold = match budgets.answers.reserve(bytes) {
            _ if bytes <= FRAME => None,
            Some(reserved) => Some(Box::new(reserved) as Hold),
            None => permit.take().map(|permit| Box::new((permit, invocation.memory().clone())) as Hold),
        };
        if permit.is_some() {
            // Before its client can come again, too.
            invocation.keep_instance(&mut finished);
        }
        invocation.end(finished, hold);
        drop((in_flight, permit));
    }
}
