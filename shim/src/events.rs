//! What containerd is told of: each event once, in the order in which things happened.

use containerd_shim::{Context, event::Event, publisher::RemotePublisher};

#[derive(Clone)]
pub struct Events {
    publisher: std::sync::Arc<RemotePublisher>,
    namespace: String,
}

impl Events {
    pub async fn connect(address: &str, namespace: String) -> anyhow::Result<Events> {
        let publisher = RemotePublisher::new(address).await?;
        Ok(Events { publisher: std::sync::Arc::new(publisher), namespace })
    }

    /// Queues the event; the publisher sends in order, and again if containerd is away for a while.
    pub async fn publish(&self, event: impl Event + 'static) {
        let topic = event.topic();
        let sent = self.publisher.publish(Context::default(), &topic, &self.namespace, Box::new(event)).await;
        if let Err(error) = sent {
            log::error!("event {topic}: {error}");
        }
    }
}
