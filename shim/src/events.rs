//! What containerd is told of: each event once, in the order in which things happened. While containerd is away they wait.

use std::time::{Duration, SystemTime};

use containerd_shim::event::Event;
use containerd_shim_protos::{
    protobuf::{Message, MessageField, well_known_types::any::Any},
    shim::{event::Envelope, events::ForwardRequest},
    shim_async::{Client, EventsClient},
    ttrpc::{self, asynchronous::transport::Socket, context},
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::container::timestamp;

/// How many wait at most; a pod has few, so that this is hours without containerd.
const WAITING: usize = 1024;
/// Of the events' messages.
const PACKAGE: &str = "containerd.events";
/// For one event: containerd writes it to its subscribers' queues.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts, while containerd is away.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<Item>,
    namespace: String,
}

/// What goes to containerd, in this order.
#[derive(Debug)]
pub enum Item {
    Event(Box<Envelope>),
    /// Tells when all before it have gone out.
    Flush(oneshot::Sender<()>),
}

impl Events {
    /// To containerd's socket at `address`; the task that sends ends when all copies of this are dropped.
    pub fn new(address: String, namespace: String) -> (Events, impl Future<Output = ()> + use<>) {
        let (events, waiting) = Events::queue(namespace);
        (events, send(address, waiting))
    }

    /// With what is published, to be sent.
    pub fn queue(namespace: String) -> (Events, mpsc::Receiver<Item>) {
        let (queue, waiting) = mpsc::channel(WAITING);
        (Events { queue, namespace }, waiting)
    }

    /// Queues the event. It holds nobody up.
    pub fn publish<E: Event + Message>(&self, event: &E) {
        let topic = event.topic();
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => return log::error!("event {topic}: {error}"),
        };
        // Not asked of the message's descriptor: descriptors take half a megabyte in each pod's shim.
        let type_url = format!("{PACKAGE}.{}", E::NAME);
        let any = Any { type_url, value, ..Any::default() };
        let envelope = Envelope {
            timestamp: timestamp(SystemTime::now()),
            namespace: self.namespace.clone(),
            topic: topic.clone(),
            event: MessageField::some(any),
            ..Envelope::default()
        };
        if self.queue.try_send(Item::Event(Box::new(envelope))).is_err() {
            log::error!("event {topic}: lost, since {WAITING} wait already");
        }
    }

    /// Waits until all have gone out, but not for long.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Item::Flush(done)).await.is_ok() {
            let _ = timeout(DEADLINE, flushed).await;
        }
    }
}

async fn send(address: String, mut waiting: mpsc::Receiver<Item>) {
    let mut client = None;
    while let Some(item) = waiting.recv().await {
        match item {
            Item::Event(envelope) => deliver(&address, &mut client, *envelope).await,
            // Who flushes may have given up.
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

async fn deliver(address: &str, client: &mut Option<EventsClient>, envelope: Envelope) {
    let topic = envelope.topic.clone();
    let request = ForwardRequest { envelope: MessageField::some(envelope), ..ForwardRequest::default() };
    let mut pauses = PAUSES.into_iter();
    let mut pause = PAUSES[0];
    loop {
        if client.is_none() {
            let stream = UnixStream::connect(address).await;
            *client = stream.ok().map(|stream| EventsClient::new(Client::new(Socket::from(stream))));
        }
        if let Some(connected) = client {
            match connected.forward(context::with_duration(DEADLINE), &request).await {
                Ok(_) => return,
                // containerd has it, and does not want it.
                Err(ttrpc::Error::RpcStatus(status)) => return log::error!("event {topic}: {}", status.message),
                Err(error) => log::debug!("event {topic}: {error}"),
            }
            *client = None;
        }
        pause = pauses.next().unwrap_or(pause);
        sleep(pause).await;
    }
}
