//! A request to bare hyper, on one thread with 16 connections: what HTTP alone costs.

use std::{
    cell::RefCell,
    convert::Infallible,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    rc::Rc,
    thread,
    time::Duration,
};

use wasmtime::{Result, error::Context};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{sync::Notify, task::LocalSet};
use wasmbox::threads::cpu_time;

use crate::{
    around::REQUEST,
    meter::{Meter, Part, micros},
};

const CONNECTIONS: usize = 16;
/// Of a batch.
const REQUESTS: u32 = 5000;

/// The samples so far, and the batch that is counted.
#[derive(Default)]
struct Samples {
    requests: u32,
    began: Duration,
    micros: Vec<f64>,
}

/// # Errors
/// If there is no connection on the loopback interface.
pub fn request(meter: &Meter) -> Result<Part> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    let address = listener.local_addr()?;
    let batches = meter.batches as usize;
    let server = thread::spawn(move || serve(listener, batches));
    let connect = |_| TcpStream::connect(address);
    let mut clients = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>, _>>()?;
    // An error here is the server's end.
    while ask_all(&mut clients).is_ok() {}
    let samples = server.join().map_err(|_| wasmtime::format_err!("the measuring thread panicked"))??;
    Part::of("HTTP: a request to bare hyper, recv and writev included", samples)
}

/// One request on each connection, at once.
fn ask_all(clients: &mut [TcpStream]) -> std::io::Result<()> {
    for client in &mut *clients {
        client.write_all(REQUEST)?;
    }
    let mut buffer = [0; 4096];
    for client in clients {
        let mut length = 0;
        while !buffer[..length].ends_with(b"hello\n") {
            match client.read(&mut buffer[length..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => length += read,
            }
        }
    }
    Ok(())
}

/// Serves until there are so many samples.
fn serve(listener: TcpListener, batches: usize) -> Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    let samples: Rc<RefCell<Samples>> = Rc::default();
    let enough = Rc::new(Notify::new());
    LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (samples, enough) = (samples.clone(), enough.clone());
            let hello = service_fn(move |_request| {
                if samples.borrow_mut().count() > batches {
                    enough.notify_one();
                }
                async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello\n")))) }
            });
            tokio::task::spawn_local(async move {
                // An error here is a client that left.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), hello).await;
            });
        }
        enough.notified().await;
        Ok::<_, std::io::Error>(())
    })?;
    let Samples { mut micros, .. } = samples.take();
    // The first batch finds caches cold.
    micros.remove(0);
    Ok(micros)
}

impl Samples {
    /// Counts a request; gives how many batches are complete.
    fn count(&mut self) -> usize {
        self.requests += 1;
        if self.requests == REQUESTS {
            let now = cpu_time();
            self.micros.push(micros(now - self.began) / f64::from(REQUESTS));
            (self.requests, self.began) = (0, now);
        }
        self.micros.len()
    }
}
