//! What the box holds for a component.

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::{Setup, limiter::Limiter, outbound::Outbound, resource_table};

/// The data of a component's store.
pub struct ComponentHost {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    outbound: Outbound,
    pub(super) limiter: Limiter,
}

impl ComponentHost {
    pub(super) fn new(wasi: WasiCtx, setup: &Setup) -> ComponentHost {
        ComponentHost {
            wasi,
            table: resource_table(setup),
            http: WasiHttpCtx::new(),
            outbound: Outbound::new(setup),
            limiter: setup.limiter(),
        }
    }

    /// Before a host call. One that the box holds too much for has nothing left.
    fn bound(&mut self) {
        if self.limiter.overdraws() {
            self.wasi = WasiCtxBuilder::new().build();
            self.table = ResourceTable::new();
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
