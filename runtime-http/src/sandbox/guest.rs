//! A guest's call as one future, which owns all that it needs: it can begin on one thread and go on, with its store and its stack, on another.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Call, Ended, ReplySender, Setup, run};

/// One call. Nothing of it has happened before it is first driven: [`Guest::run`].
pub struct Guest {
    call: Pin<Box<dyn Future<Output = Ended> + Send>>,
    pub(super) setup: Arc<Setup>,
}

impl Guest {
    pub fn new(call: Call, setup: Arc<Setup>, reply: ReplySender) -> Guest {
        let call = {
            let _charging = setup.memory.charge();
            Box::pin(run(call, setup.clone(), reply))
        };
        Guest { call, setup }
    }

    /// What this thread allocates meanwhile is charged to the invocation.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let _charging = self.setup.memory.charge();
        self.call.as_mut().poll(context)
    }
}

#[cfg(test)]
impl Guest {
    /// One that does `call` instead of what a module says.
    pub fn doing(setup: Arc<Setup>, call: impl Future<Output = ()> + Send + 'static) -> Guest {
        use super::{Remains, executor::bounded, failure::cancelled};
        let bounds = setup.clone();
        let call = Box::pin(async move {
            let result = bounded(&bounds, std::pin::pin!(call), |_| ()).await;
            let result = result.map(|()| None).map_err(|reason| cancelled(reason, 0, bounds.bounds()));
            Ended { result, memory_peak: 0, remains: Remains::none() }
        });
        Guest { call, setup }
    }
}
