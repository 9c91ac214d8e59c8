//! A line of a function's log.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{invocation::InvocationId, logging::json};

/// What a line takes beside its texts, with its place in a ring.
pub(super) const LINE_BYTES: usize = 160;

/// What a line says.
#[derive(Debug)]
pub enum Entry {
    /// What a guest wrote to its standard error.
    Stderr(Box<str>),
    /// What it gave to the log itself.
    Log { severity: &'static str, context: Box<str>, text: Box<str> },
    /// It wrote more than an invocation may.
    Dropped { bytes: usize },
    /// An invocation failed; `code` is empty if its answer had begun.
    Failed { status: u16, code: &'static str, reason: Box<str> },
}

#[derive(Debug)]
pub struct Line {
    pub function: Arc<str>,
    pub at: SystemTime,
    pub id: InvocationId,
    /// Lines of this function before it that there was no room for.
    pub lost: u64,
    pub entry: Entry,
}

impl Line {
    /// What it counts for.
    pub fn bytes(&self) -> usize {
        let texts = match &self.entry {
            Entry::Stderr(text) => text.len(),
            Entry::Log { context, text, .. } => context.len() + text.len(),
            Entry::Dropped { .. } => 0,
            Entry::Failed { reason, .. } => reason.len(),
        };
        LINE_BYTES + texts
    }

    /// The same in memory of its own.
    #[must_use]
    pub fn copied(&self) -> Line {
        let copied = |text: &str| -> Box<str> { text.into() };
        let entry = match &self.entry {
            Entry::Stderr(text) => Entry::Stderr(copied(text)),
            Entry::Log { severity, context, text } => {
                Entry::Log { severity, context: copied(context), text: copied(text) }
            }
            Entry::Dropped { bytes } => Entry::Dropped { bytes: *bytes },
            Entry::Failed { status, code, reason } => Entry::Failed { status: *status, code, reason: copied(reason) },
        };
        Line { function: self.function.clone(), at: self.at, id: self.id, lost: self.lost, entry }
    }

    /// As one line of JSON.
    pub fn json(&self) -> Vec<u8> {
        let at = self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let digits = self.id.digits();
        let mut shown = Shown {
            unix_ms: Some(u64::try_from(at).unwrap_or(u64::MAX)),
            id: Some(digits.as_str().into()),
            ..Shown::default()
        };
        match &self.entry {
            Entry::Stderr(text) => shown.stderr = Some((&**text).into()),
            Entry::Log { severity, context, text } => {
                shown.severity = Some((*severity).into());
                shown.context = Some((&**context).into()).filter(|_| !context.is_empty());
                shown.log = Some((&**text).into());
            }
            Entry::Dropped { bytes } => shown.dropped_bytes = Some(*bytes as u64),
            Entry::Failed { status, code, reason } => {
                shown.status = Some(*status);
                shown.code = Some((*code).into()).filter(|_| !code.is_empty());
                shown.failure = Some((&**reason).into());
            }
        }
        shown.json()
    }
}

/// A line as it is sent, and as `wasmbox logs` reads it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Cow<'a, str>>,
    /// Lines between the one before and the next that are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

impl Shown<'_> {
    /// A note of lines that are gone.
    pub fn missed(lines: u64) -> Shown<'static> {
        Shown { missed: Some(lines), ..Shown::default() }
    }

    /// What is said of what an invocation wrote and the log does not have.
    pub fn not_logged(&self) -> Option<String> {
        self.dropped_bytes.map(|bytes| format!("... {bytes} bytes more were not logged"))
    }

    /// With its line feed; nothing in it that a terminal obeys.
    pub fn json(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self).expect("texts and numbers are representable in JSON");
        let mut line = json::escaped(&text).unwrap_or(text);
        line.push(b'\n');
        line
    }
}
