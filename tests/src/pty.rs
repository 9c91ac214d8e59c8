//! A terminal of a test's own, and a program in it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::patience::eventually;

/// A program with a terminal of 40 lines of 150 characters. Dropping it ends the program.
pub struct Pty {
    child: Child,
    terminal: File,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Pty {
    /// # Panics
    /// If there is no terminal to be had, or the program does not run.
    pub fn spawn(mut command: Command) -> Pty {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("the terminal is ours");
        let name = ptsname(&terminal, Vec::new()).expect("the terminal has a name");
        let name = Path::new(name.to_str().expect("it is a path"));
        let program = OpenOptions::new().read(true).write(true).open(name).expect("its other end");
        tcsetwinsize(&program, Winsize { ws_row: 40, ws_col: 150, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
        let end = || program.try_clone().expect("another descriptor");
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the program runs");
        let terminal = File::from(terminal);
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let (mut reads, all) = (terminal.try_clone().expect("another descriptor"), written.clone());
        // It ends with the program, whose end of the terminal is the last one.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(number @ 1..) = reads.read(&mut bytes) {
                all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..number]);
            }
        });
        Pty { child, terminal, written }
    }

    /// All that it has written so far, with what moves the cursor.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until it has written each of `parts`. A screen is drawn without its blanks, so a part is a word.
    pub fn writes(&self, parts: &[&str]) {
        eventually(&format!("{parts:?} on the terminal"), || {
            let written = self.written();
            parts.iter().all(|part| written.contains(part)).then_some(())
        });
    }

    /// Presses keys.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// How the terminal is set.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.terminal).expect("the terminal is open")
    }

    /// Waits for the program's end.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the end of the program", || self.child.try_wait().expect("the child is ours"))
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
