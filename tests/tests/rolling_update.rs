//! A box is replaced by another one under load, again and again, and no request is lost: on kept connections and new ones, with and without a
//! body, on HTTP/1.1 and HTTP/2, short ones and slow ones.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::net::{TcpListener, TcpStream};
use wasmbox_tests::{WasmBox, guest, patience::PATIENCE};

const ROUNDS: usize = 6;

fn start() -> WasmBox {
    WasmBox::launch()
        .function("hello.wat", guest::hello())
        .function("echo.wat", guest::echo())
        .function("slow.wat", guest::printing("slow", "(call $sleep (i64.const 700))"))
        .flag("--memory-request", 1)
        .flag("--drain-timeout", "60s")
        .start()
}

/// What a Service is: connections go where it points when they are opened, and stay there.
struct Service {
    address: SocketAddr,
    target: Arc<tokio::sync::Mutex<SocketAddr>>,
}

impl Service {
    async fn start(target: SocketAddr) -> Service {
        let target = Arc::new(tokio::sync::Mutex::new(target));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let of_connections = target.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.expect("a connection");
                let of_connections = of_connections.clone();
                tokio::spawn(async move {
                    // Until it is connected, nobody points elsewhere.
                    let target = of_connections.lock().await;
                    let mut server = TcpStream::connect(*target).await.expect("the box takes new connections");
                    drop(target);
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Service { address, target }
    }
}

/// What clients saw.
#[derive(Default)]
struct Count {
    answered: AtomicU64,
    failed: Mutex<Vec<String>>,
    end: AtomicBool,
}

#[derive(Clone, Copy)]
struct Load {
    path: &'static str,
    body: &'static str,
    expected: &'static str,
    http2: bool,
    /// Whether one connection is used as long as the box wants it.
    kept: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn connect(address: SocketAddr, http2: bool) -> Sender {
        let stream = TokioIo::new(TcpStream::connect(address).await.expect("the service is there"));
        if http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.expect("a connection of HTTP/2");
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.expect("a connection of HTTP/1");
            tokio::spawn(connection);
            Sender::Http1(sender)
        }
    }

    /// Whether the server has not closed it.
    async fn is_open(&mut self) -> bool {
        match self {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<hyper::body::Incoming>> {
        match self {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        }
    }
}

async fn client(address: SocketAddr, load: Load, count: Arc<Count>) {
    let mut kept: Option<Sender> = None;
    while !count.end.load(Ordering::Relaxed) {
        let mut sender = match kept.take() {
            Some(sender) => sender,
            None => Sender::connect(address, load.http2).await,
        };
        if !sender.is_open().await {
            continue;
        }
        let target = if load.http2 { format!("http://{address}{}", load.path) } else { load.path.to_owned() };
        let request = if load.body.is_empty() { Request::get(target) } else { Request::post(target) };
        let request = request.header(header::HOST, "box").body(Full::from(load.body)).expect("a request");
        let answer = async {
            let response = sender.send(request).await?;
            let status = response.status();
            let closes = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, closes, body))
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok((status, closes, body))) if status == 200 && body == load.expected.as_bytes() => {
                count.answered.fetch_add(1, Ordering::Relaxed);
                kept = Some(sender).filter(|_| load.kept && !closes);
            }
            // It was never sent, since the server had said before that it takes no more: that is what GOAWAY is for.
            Ok(Err(error)) if load.http2 && error.is_canceled() => {}
            other => count.failed.lock().expect("no panic").push(format!("{}: {other:?}", load.path)),
        }
    }
}

#[test]
fn nothing_is_lost_when_boxes_are_replaced() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut server = start();
    let service = runtime.block_on(Service::start(server.address()));
    let count = Arc::new(Count::default());
    let get = Load { path: "/hello", body: "", expected: "hello\n", http2: false, kept: true };
    let post = Load { path: "/echo", body: "as sent", expected: "as sent", ..get };
    let slow = Load { path: "/slow", expected: "slow", ..get };
    let loads = [
        get,
        get,
        post,
        post,
        slow,
        slow,
        Load { kept: false, ..get },
        Load { kept: false, ..post },
        Load { http2: true, ..get },
        Load { http2: true, ..post },
        Load { http2: true, ..slow },
    ];
    let clients: Vec<_> =
        loads.iter().map(|load| runtime.spawn(client(service.address, *load, count.clone()))).collect();
    for round in 0..ROUNDS {
        let before = count.answered.load(Ordering::Relaxed);
        let new = start();
        *service.target.blocking_lock() = new.address();
        // The old one accepts those that are just made to it.
        std::thread::sleep(Duration::from_millis(100));
        let mut old = std::mem::replace(&mut server, new);
        old.signal(Signal::TERM);
        assert_eq!(old.wait().code(), Some(0), "round {round}");
        assert!(count.answered.load(Ordering::Relaxed) > before, "round {round}: nobody asks");
        let failed = count.failed.lock().expect("no panic");
        assert!(failed.is_empty(), "round {round}: {failed:?}");
    }
    count.end.store(true, Ordering::Relaxed);
    for client in clients {
        runtime.block_on(client).expect("no panic");
    }
    let failed = count.failed.lock().expect("no panic");
    assert!(failed.is_empty(), "{failed:?}");
}
