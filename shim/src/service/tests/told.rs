//! What containerd was told of: each thing once, and in its order.

use containerd_shim_protos::{
    events::task::{TaskDelete, TaskExit},
    protobuf::Message,
};

use super::{EXEC, ID, Step};
use crate::events::Item;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Phase {
    #[default]
    Unknown,
    Created,
    Started,
    Ended,
}

#[derive(Debug, Default)]
pub struct Told {
    init: Phase,
    exec: Phase,
    /// The init process's.
    pub exit: Option<u32>,
    pub exec_exit: Option<u32>,
    pub is_deleted: bool,
}

impl Told {
    pub fn was_created(&self) -> bool {
        self.init != Phase::Unknown
    }

    pub fn is_new(&self) -> bool {
        self.init == Phase::Created
    }

    pub fn runs(&self) -> bool {
        self.init == Phase::Started
    }

    pub fn exec_runs(&self) -> bool {
        self.exec == Phase::Started
    }

    pub fn is_there(&self) -> bool {
        self.was_created() && !self.is_deleted
    }

    /// # Panics
    /// If it must not come now.
    pub fn hear(&mut self, item: Item, steps: &[Step]) {
        let Item::Event(envelope) = item else { return };
        let value = &envelope.event.value;
        let out_of_order = |told: &Told| format!("{steps:?}: {} after {told:?}", envelope.topic);
        assert!(!self.is_deleted, "{}", out_of_order(self));
        // The shim has not waited any longer.
        let is_late = steps.iter().any(|step| matches!(step, Step::TimeIsUp(_)));
        let (is_exec, before, after): (bool, &[Phase], Phase) = match envelope.topic.as_str() {
            "/tasks/create" => (false, &[Phase::Unknown], Phase::Created),
            "/tasks/start" => (false, &[Phase::Created], Phase::Started),
            "/tasks/exec-added" => (true, &[Phase::Unknown, Phase::Ended], Phase::Created),
            "/tasks/exec-started" => {
                assert!(self.init != Phase::Ended, "{}", out_of_order(self));
                (true, &[Phase::Created], Phase::Started)
            }
            "/tasks/exit" => {
                let exit = TaskExit::parse_from_bytes(value).unwrap();
                assert_eq!(exit.container_id, ID);
                if exit.id == EXEC {
                    self.exec_exit = Some(exit.exit_status);
                    (true, &[Phase::Started], Phase::Ended)
                } else {
                    assert_eq!(exit.id, ID);
                    assert!(is_late || !self.exec_runs(), "{}", out_of_order(self));
                    self.exit = Some(exit.exit_status);
                    (false, &[Phase::Created, Phase::Started], Phase::Ended)
                }
            }
            "/tasks/delete" => {
                assert_eq!(Some(TaskDelete::parse_from_bytes(value).unwrap().exit_status), self.exit, "{steps:?}");
                // Of what has started the end is told.
                assert!(!self.exec_runs(), "{}", out_of_order(self));
                self.is_deleted = true;
                (false, &[Phase::Ended], Phase::Ended)
            }
            other => panic!("{other}"),
        };
        let phase = if is_exec { self.exec } else { self.init };
        assert!(before.contains(&phase), "{}", out_of_order(self));
        *(if is_exec { &mut self.exec } else { &mut self.init }) = after;
    }
}
