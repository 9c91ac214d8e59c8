//! A guest's call by wasmtime alone: in an engine of the box's, without the box's limits and accounting. What the box adds is on top of it.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll, Waker},
};

use bytes::Bytes;
use hyper::{Request, Response};
use wasmbox::exchange::{budget::Reservation, request_body::RequestBody};

use wasmtime::{
    Engine, Extern, Linker, Module, Result, Store,
    component::{self, Component, ResourceTable},
    ensure,
    error::Context,
};
use wasmtime_wasi::{
    WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
    p1::{self, WasiP1Ctx},
    p2::pipe::MemoryOutputPipe,
};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p2::bindings::{ProxyPre, http::types::Scheme},
};

use crate::meter::{Meter, Part};

const NAMES: [&str; 4] = ["context and store", "instantiate", "call", "drop: give the slot back, clean"];

/// The trivial core module's call.
///
/// # Errors
/// If it fails, or does not write `hello`.
pub fn core(meter: &Meter, module: &Module) -> Result<Vec<Part>> {
    let engine = module.engine();
    let mut linker: Linker<WasiP1Ctx> = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |wasi| wasi)?;
    let pre = linker.instantiate_pre(module)?;
    let start = module.get_export_index("_start").context("no _start")?;
    meter.laps(NAMES, |laps| {
        let stdout = MemoryOutputPipe::new(64);
        let wasi = WasiCtxBuilder::new().stdout(stdout.clone()).build_p1();
        let mut store = store(engine, wasi);
        laps.lap(0);
        let instance = finish(pre.instantiate_async(&mut store))?;
        laps.lap(1);
        let start = instance.get_module_export(&mut store, &start).and_then(Extern::into_func);
        let start = start.context("no _start")?.typed::<(), ()>(&store)?;
        finish(start.call_async(&mut store, ()))?;
        laps.lap(2);
        drop(store);
        laps.lap(3);
        ensure!(stdout.contents() == "hello\n", "the module wrote {:?}", stdout.contents());
        Ok(())
    })
}

/// The trivial component's call.
///
/// # Errors
/// If it fails, or gives no response.
pub fn http(meter: &Meter, component: &Component) -> Result<Vec<Part>> {
    let engine = component.engine();
    let mut linker: component::Linker<Host> = component::Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    let pre = ProxyPre::new(linker.instantiate_pre(component)?)?;
    meter.laps(NAMES, |laps| {
        let answer: Arc<Mutex<Option<Response<_>>>> = Arc::default();
        let request = request()?;
        laps.skip();
        let wasi = WasiCtxBuilder::new().build();
        let host = Host { wasi, table: ResourceTable::new(), http: WasiHttpCtx::new(), hooks: NoWayOut };
        let mut store = store(engine, host);
        laps.lap(0);
        let proxy = finish(pre.instantiate_async(&mut store))?;
        laps.lap(1);
        let slot = answer.clone();
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let out = http.new_response_outparam_from_callback(move |response| {
            *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = response.ok();
        })?;
        finish(proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out))?;
        laps.lap(2);
        drop(store);
        laps.lap(3);
        let answered = answer.lock().is_ok_and(|answer| answer.is_some());
        ensure!(answered, "the component gave no response");
        Ok(())
    })
}

/// What is asked, as it comes to the guest.
///
/// # Errors
/// Never, unless the address is wrong.
pub fn request() -> Result<Request<RequestBody>> {
    let body = RequestBody::full(Bytes::new(), Reservation::default());
    Request::builder().uri("/hello-http").header("host", "localhost").body(body).context("the request is wrong")
}

/// With the epochs by which the box interrupts guests.
fn store<T: 'static>(engine: &Engine, data: T) -> Store<T> {
    let mut store = Store::new(engine, data);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

/// Runs what waits for nobody to its end.
pub fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = TaskContext::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    hooks: NoWayOut,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// The component sends no requests.
struct NoWayOut;

type Processed = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for NoWayOut {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Processed,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Processed), Error>> + Send> {
        Box::new(async { Err(Error::HttpRequestDenied) })
    }

    /// As in the box: it need not wait until its answer is read.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        15
    }
}
