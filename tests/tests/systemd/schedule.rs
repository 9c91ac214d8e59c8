//! `deployment/schedules`: a timer that calls a function, as docs/schedules.md says.

use std::{fs, path::Path, process::Command};

use wasmbox_tests::{eventually, workspace};

use super::node::{said, systemctl};

const UNITS: &str = "/etc/systemd/system";
const NAMES: [&str; 2] = ["wasmbox-call@.service", "wasmbox-call@.timer"];
/// At once, in the place of two at night.
const NOW: &str = "[Timer]\nOnCalendar=\nOnActiveSec=1\nRandomizedDelaySec=0\nAccuracySec=100ms\n";

/// The units; dropped, they are gone.
pub struct Schedule;

impl Schedule {
    pub fn install() -> Schedule {
        let source = workspace::root().join("deployment/schedules");
        for name in NAMES {
            fs::copy(source.join(name), Path::new(UNITS).join(name)).expect("a unit of deployment/schedules");
        }
        let changes = Path::new(UNITS).join("wasmbox-call@.timer.d");
        fs::create_dir(&changes).expect("a new directory");
        fs::write(changes.join("now.conf"), NOW).expect("a new file");
        systemctl(&["daemon-reload"]);
        Schedule
    }

    /// The timer calls `function`; gives what the call printed.
    pub fn called(&self, function: &str) -> String {
        let timer = format!("wasmbox-call@{function}.timer");
        systemctl(&["start", &timer]);
        eventually("its timer starts the call", || {
            let last = systemctl(&["show", "--value", "--property", "LastTriggerUSec", &timer]);
            (!last.trim().is_empty()).then_some(())
        });
        let ended = || {
            let state = property(function, "ActiveState");
            matches!(&*state, "inactive" | "failed").then_some(())
        };
        eventually("the call has ended", || {
            ended().filter(|()| property(function, "ExecMainExitTimestampMonotonic") != "0")
        });
        systemctl(&["stop", &timer]);
        let unit = format!("wasmbox-call@{function}.service");
        said(Command::new("journalctl").args(["--unit", &unit, "--output", "cat", "--no-pager"]))
    }
}

/// How the call of `function` has ended.
pub fn result(function: &str) -> String {
    property(function, "Result")
}

fn property(function: &str, name: &str) -> String {
    let unit = format!("wasmbox-call@{function}.service");
    systemctl(&["show", "--value", "--property", name, &unit]).trim().to_owned()
}

impl Drop for Schedule {
    fn drop(&mut self) {
        for name in NAMES {
            let _ = fs::remove_file(Path::new(UNITS).join(name));
        }
        let _ = fs::remove_dir_all(Path::new(UNITS).join("wasmbox-call@.timer.d"));
        systemctl(&["daemon-reload"]);
        systemctl(&["reset-failed"]);
    }
}
