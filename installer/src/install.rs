//! The order of things: what is missing is done, what is there is left alone, and what fails is taken back.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::{
    binaries::Binaries,
    cri,
    dump::{Dump, HANDLER},
    link::Link,
    node::Node,
    registration::Registration,
};

const PAUSE: Duration = Duration::from_millis(250);

pub struct Installer {
    pub node: Node,
    pub binaries: Binaries,
    /// How long containerd may take to answer after a restart.
    pub patience: Duration,
}

impl Installer {
    /// # Errors
    /// Why the handler does not answer. The configuration is then as it was.
    pub async fn install(&self) -> anyhow::Result<()> {
        // The binary is there, and is found, before anybody can be told to run it; and before any restart, at which containerd looks for the
        // shims of all that runs.
        self.binaries.put()?;
        let linked = self.dump().map(|dump| self.link().put(&dump)).transpose()?.is_some();
        let undo = self.registration().add()?;
        // A configuration that could not be read is one now.
        if !linked && let Some(dump) = self.dump() {
            self.link().put(&dump)?;
        }
        // An installation that ended before its restart is finished by the next. But one that is down, or slow, for reasons of its own is
        // left alone.
        if undo.is_none() && self.answer().await? {
            return Ok(());
        }
        let Err(error) = self.restart_until(true).await else {
            eprintln!("containerd has the handler {HANDLER}");
            return Ok(());
        };
        if let Some(undo) = undo {
            undo.restore().context("taking the registration back")?;
            if let Err(again) = self.restart_until(false).await {
                return Err(error.context(format!(
                    "the configuration was restored, but containerd does not answer with it either ({again:#})"
                )));
            }
            return Err(error.context("the configuration was restored"));
        }
        Err(error)
    }

    /// # Errors
    /// What could not be removed; or that containerd, having answered before, does not any more.
    pub async fn uninstall(&self) -> anyhow::Result<()> {
        let answered = cri::has_handler(&self.node.socket, HANDLER).await;
        let dump = self.dump();
        let changed = self.registration().remove()?;
        // One that is down needs no restart to forget the handler.
        if answered.is_ok() && (changed || matches!(answered, Ok(true))) {
            self.restart_until(false).await?;
            eprintln!("containerd has the handler {HANDLER} no more");
        }
        self.link().remove(dump.as_ref())?;
        Ok(self.binaries.remove()?)
    }

    /// Whether containerd has the handler, when it answers.
    async fn answer(&self) -> anyhow::Result<bool> {
        let started = Instant::now();
        loop {
            match cri::has_handler(&self.node.socket, HANDLER).await {
                Ok(answer) => return Ok(answer),
                Err(error) if started.elapsed() >= self.patience => {
                    let socket = self.node.socket.display();
                    return Err(error).with_context(|| format!("containerd's CRI at {socket} does not answer"));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn registration(&self) -> Registration<'_> {
        Registration { node: &self.node }
    }

    fn link(&self) -> Link<'_> {
        Link { node: &self.node, shim: self.binaries.shim() }
    }

    /// The configuration, if containerd can read it.
    fn dump(&self) -> Option<Dump> {
        Dump::read(&self.node.containerd, &self.node.config).ok()
    }

    /// Restarts containerd, and waits until its CRI answers, with the handler or without.
    async fn restart_until(&self, wanted: bool) -> anyhow::Result<()> {
        let whether = if wanted { "with" } else { "without" };
        eprintln!("containerd: restarting");
        self.node.restart().context("restarting containerd")?;
        let started = Instant::now();
        loop {
            let answer = cri::has_handler(&self.node.socket, HANDLER).await;
            if matches!(answer, Ok(has) if has == wanted) {
                return Ok(());
            }
            if started.elapsed() >= self.patience {
                let socket = self.node.socket.display();
                return match answer {
                    Ok(_) => {
                        Err(anyhow::anyhow!("containerd at {socket} does not run {whether} the handler {HANDLER}"))
                    }
                    Err(error) => Err(error).with_context(|| format!("containerd's CRI at {socket} does not answer")),
                };
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
