//! One admitted invocation, and what has to be given back when it has ended.

use std::sync::Arc;

use prometheus::IntGauge;

use super::{
    estimate::ExecutionEstimate,
    quota::Spending,
    run::{Finished, Invocation},
};
use crate::{
    access_log::Record,
    admission::Permit,
    exchange::{
        budget::{ByteBudget, Hold},
        request_body::FRAME,
    },
    invocation::Outcome,
};

/// One admitted invocation. It is dropped on the thread on which it ends, in a panic, too.
pub struct Job {
    pub invocation: Invocation,
    pub permit: Permit,
    pub record: Arc<Record>,
    pub estimate: Arc<ExecutionEstimate>,
    /// What it may use of its function's budget.
    pub spending: Spending,
    /// For an answer that is not delivered when it has ended.
    pub answers: ByteBudget,
    /// Counts it while it runs.
    pub in_flight: InFlight,
}

/// Counts one invocation from [`InFlight::begin`] until it is dropped.
pub struct InFlight {
    gauge: IntGauge,
    begun: bool,
}

impl InFlight {
    pub fn new(gauge: IntGauge) -> InFlight {
        InFlight { gauge, begun: false }
    }

    pub(super) fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.gauge.inc();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.begun {
            self.gauge.dec();
        }
    }
}

impl Job {
    /// Whether it may begin on the thread that has admitted it.
    pub(super) fn fits_in_a_slice(&self) -> bool {
        !self.permit.has_waited()
            && self.spending.is_accounted()
            && self.estimate.fits_in_a_slice()
            && self.invocation.fits_in_a_slice()
    }

    /// Tells whoever waits, and gives back what it had.
    pub(super) fn end(self, finished: Finished) {
        let Job { invocation, permit, record, estimate, spending, answers, in_flight } = self;
        let (mut permit, mut spending) = (Some(permit), Some(spending));
        let observe = |outcome: &Outcome| {
            estimate.add(outcome.usage.execution);
            // Before its client can come again.
            if let Some(spending) = spending.take() {
                spending.end(outcome.usage.cpu);
            }
            record.ended(outcome.clone());
        };
        let memory = invocation.memory().clone();
        // A small answer is included in what a connection may hold. One for which there is no room keeps the permit until it is delivered, and
        // stays in the account of its invocation.
        let hold = |bytes| match answers.reserve(bytes) {
            _ if bytes <= FRAME => None,
            Some(reserved) => Some(Box::new(reserved) as Hold),
            None => permit.take().map(|permit| Box::new((permit, memory)) as Hold),
        };
        invocation.end(finished, observe, hold);
        drop((in_flight, permit));
    }
}
