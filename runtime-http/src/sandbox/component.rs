//! What the box holds for a component.

use std::{any::Any, collections::HashMap, sync::Arc};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    p2::{DynInputStream, DynOutputStream, DynPollable},
};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use wasmtime_wasi_config::WasiConfig;

use super::{
    GuestConfig, Setup, Stderr,
    keyvalue::Bucket,
    limiter::Limiter,
    outbound::{CurrentOutbound, Outbound},
    resource_table,
};
use crate::{
    allocator::HeldBytes,
    keyvalue::{FunctionStore, InvocationMemory},
};

/// The data of a component's store.
pub struct ComponentHost {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    outbound: Outbound,
    config: Arc<GuestConfig>,
    stderr: Stderr,
    /// Who is asked before its sockets are used, if it may have some.
    for_sockets: Option<CurrentOutbound>,
    keyvalue: Option<FunctionStore>,
    /// What its listings of directories hold, by their handles.
    pub(super) listings: HashMap<u32, Option<HeldBytes>>,
    /// In which is what is read of it.
    pub(super) memory: InvocationMemory,
    pub(super) limiter: Limiter,
}

impl ComponentHost {
    pub(super) fn new(wasi: WasiCtx, for_sockets: Option<CurrentOutbound>, setup: &Setup) -> ComponentHost {
        ComponentHost {
            wasi,
            table: resource_table(setup),
            http: WasiHttpCtx::new(),
            outbound: Outbound::new(setup),
            config: setup.config.clone(),
            stderr: setup.stderr.clone(),
            for_sockets,
            keyvalue: setup.keyvalue.clone(),
            listings: HashMap::new(),
            memory: InvocationMemory::new(setup.memory.clone(), setup.most_memory()),
            limiter: setup.limiter(),
        }
    }

    /// For another invocation of its function, which gets what is in the table, and what it has drawn.
    pub(super) fn renew(&mut self, setup: &Setup) {
        self.outbound = Outbound::new(setup);
        if let Some(current) = &self.for_sockets {
            current.set(self.outbound.clone());
        }
        self.memory = InvocationMemory::new(setup.memory.clone(), setup.most_memory());
        self.limiter.renew(setup.limits.memory.bytes(), setup.most_memory(), setup.memory.clone());
    }

    /// Whether nothing of a request is left: no socket, and in the table none of its bodies, answers, waits, and requests to others. A stream of a body, and
    /// what waits for one, have that as their parent, so those that are left alone are the guest's own.
    pub(super) fn is_clean(&mut self) -> bool {
        let is_own = |entry: &mut (dyn Any + Send)| {
            entry.is::<FieldMap>()
                || entry.is::<Bucket>()
                || entry.is::<DynInputStream>()
                || entry.is::<DynOutputStream>()
                || entry.is::<DynPollable>()
        };
        // Components of WASI 0.3 have requests and their answers where the table does not show them.
        !self.outbound.has_made_sockets() && !self.outbound.has_requests() && self.table.iter_mut().all(is_own)
    }

    pub(super) fn config(&mut self) -> WasiConfig<'_> {
        self.bound();
        WasiConfig::new(self.config.variables())
    }

    pub(super) fn outbound(&mut self) -> &Outbound {
        self.bound();
        &self.outbound
    }

    pub(super) fn keyvalue(&mut self) -> Option<FunctionStore> {
        self.bound();
        self.keyvalue.clone()
    }

    pub(super) fn log(&mut self) -> &Stderr {
        self.bound();
        &self.stderr
    }

    /// Before a host call. One that the box holds too much for has nothing left.
    fn bound(&mut self) {
        if self.limiter.overdraws() {
            self.wasi = WasiCtxBuilder::new().build();
            self.table = ResourceTable::new();
            self.listings.clear();
            self.http = WasiHttpCtx::new();
        }
    }
}

impl WasiView for ComponentHost {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.bound();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentHost {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.bound();
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}
