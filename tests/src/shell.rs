//! A shell that a test types into. It keeps its directory, variables and jobs, as the shell of somebody who follows a document does.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// For the longest command, a build, on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(300);
/// For what runs in the background, to end.
const END: Duration = Duration::from_secs(20);
/// Lines that nobody has looked at yet.
const LINES: usize = 1024;
/// Begins the line behind what a command has said; the rest is its exit code.
const MARK: char = '\u{1e}';

pub struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// What a command has said, on both of its outputs, and its exit code.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub text: String,
}

impl Shell {
    /// `command` is, or becomes, bash.
    ///
    /// # Panics
    /// If it does not run.
    pub fn open(mut command: Command) -> Shell {
        command.args(["--noprofile", "--norc"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("bash, in its namespaces");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let (sender, lines) = sync_channel(LINES);
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let mut shell = Shell { child, input, lines };
        shell.write("exec 2>&1\n");
        shell
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it does not end, or ends the shell.
    pub fn run(&mut self, command: &str) -> Said {
        self.write(&format!("{{ {command}\n}} </dev/null\nprintf '\\n{MARK}%d\\n' $?\n"));
        let mut text = String::new();
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(MARK) {
                    Some(code) => {
                        // The mark's own line end.
                        text.pop();
                        return Said { code: code.trim().parse().expect("an exit code"), text };
                    }
                    None => text += &line,
                },
                Err(RecvTimeoutError::Timeout) => panic!("{command} does not end: {text}"),
                Err(RecvTimeoutError::Disconnected) => panic!("{command} has ended the shell: {text}"),
            }
        }
    }

    fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("it is open until the end");
        input.write_all(text.as_bytes()).and_then(|()| input.flush()).expect("the shell reads");
    }
}

impl Drop for Shell {
    /// With all that it has started.
    fn drop(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(b"kill $(jobs -p) 2>/dev/null; wait\n");
        }
        let give_up = Instant::now() + END;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > give_up {
                let _ = self.child.kill();
                let _ = self.child.wait();
                assert!(thread::panicking(), "what runs in the background does not end");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
