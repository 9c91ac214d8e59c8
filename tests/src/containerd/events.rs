//! Events, as `ctr` shows them.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Child,
};

use rustix::process::Signal;

use super::Containerd;
use crate::{eventually, process::Process};

/// What containerd told, in the order in which it did, until this is dropped.
pub struct Events<'a> {
    containerd: &'a Containerd,
    path: PathBuf,
    child: Child,
}

/// An event: `/tasks/start`, and what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub topic: String,
    pub content: serde_json::Value,
}

impl<'a> Events<'a> {
    /// # Panics
    /// If there is no place for them.
    pub(super) fn listen(containerd: &'a Containerd) -> Events<'a> {
        let path = containerd.directory().join("events");
        let file = File::create(&path).expect("a new file");
        let child = containerd.command("ctr").arg("events").stdout(file).spawn();
        let events = Events { containerd, path, child: child.expect("nsenter, of the package util-linux") };
        // It does not say when it listens: so until one is seen.
        let probe = || {
            containerd.ctr(&["namespace", "label", containerd.namespace(), "probe=1"]).ok();
            events.all().iter().any(|event| event.topic == "/namespaces/update").then_some(())
        };
        eventually("events are listened for", probe);
        events
    }

    /// # Panics
    /// If a line of `ctr events` is not understood.
    pub fn all(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.path).expect("our own file");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        // "2026-01-01 00:00:00.000000000 +0000 UTC namespace /topic {...}"
        let event = |line: &str| {
            let (head, content) = line.split_once(" {").unwrap_or_else(|| panic!("an event: {line}"));
            let topic = head.rsplit(' ').next().expect("a word").to_owned();
            let content = serde_json::from_str(&format!("{{{content}")).unwrap_or_else(|_| panic!("an event: {line}"));
            Event { topic, content }
        };
        whole.lines().map(event).collect()
    }

    /// Those of one container's tasks.
    pub fn of(&self, container: &str) -> Vec<Event> {
        let is_of = |event: &Event| event.topic.starts_with("/tasks/") && event.content["container_id"] == container;
        self.all().into_iter().filter(is_of).collect()
    }

    /// Waits for one of a container's.
    pub fn until(&self, container: &str, topic: &str) -> Event {
        eventually(&format!("{topic} of {container}"), || {
            self.of(container).into_iter().find(|event| event.topic == topic)
        })
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        let is_ours = |words: &str| words.ends_with("ctr events ");
        for (pid, _) in self.containerd.node().processes().iter().filter(|(_, words)| is_ours(words)) {
            Process(*pid).signal(Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
