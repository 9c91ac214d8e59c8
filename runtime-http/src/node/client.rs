//! The box's side: hands a module over, and waits.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Answer, COMPILE_TIME, Greeting, RECEIVE_TIME, SLOT_TIME};
use crate::excerpt::excerpt;

/// How long the service may take to say something at first: starting a process takes milliseconds, waiting for others of the same pod longer.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// The longest line, about.
const LONGEST_LINE: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{step}: {source}")]
    Io { step: &'static str, source: io::Error },
    #[error("its answer is {0:?}")]
    Answer(String),
    #[error("it is of another version of wasmbox than this box")]
    OtherVersion,
    #[error("{0}")]
    Refused(String),
}

/// What the service made of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    InCache,
    /// It cannot be compiled, here or elsewhere, for this reason.
    Failed(String),
}

/// The service's socket.
#[derive(Debug)]
pub struct CompileService(PathBuf);

impl CompileService {
    pub fn new(socket: PathBuf) -> CompileService {
        CompileService(socket)
    }

    pub fn socket(&self) -> &Path {
        &self.0
    }

    /// Has `module` compiled, for engines with that compatibility key. Blocks, for minutes if it takes so long.
    ///
    /// # Errors
    /// [`ClientError`]: the service is not there for it; then the box has to do it.
    pub fn compile(&self, module: &[u8], compatibility: u64) -> Result<Outcome, ClientError> {
        let failed = |step| move |source| ClientError::Io { step, source };
        let stream = UnixStream::connect(&self.0).map_err(failed("connecting"))?;
        stream.set_read_timeout(Some(GREETING_TIME)).map_err(failed("connecting"))?;
        stream.set_write_timeout(Some(RECEIVE_TIME.duration())).map_err(failed("connecting"))?;
        let mut lines = BufReader::new((&stream).take(2 * LONGEST_LINE));
        let greeting = line(&mut lines).map_err(failed("waiting for its greeting"))?;
        match (Greeting::parse(&greeting), Answer::parse(&greeting)) {
            (Some(Greeting(made)), _) if made == compatibility => {}
            (Some(_), _) => return Err(ClientError::OtherVersion),
            (None, Some(Answer::Refused(reason))) => return Err(ClientError::Refused(excerpt(reason))),
            (None, _) => return Err(ClientError::Answer(greeting)),
        }
        let sent = (&stream).write_all(module).and_then(|()| stream.shutdown(Shutdown::Write));
        // One that refuses says why, and does not read on. Another box's compilation of the same module may come first.
        stream
            .set_read_timeout(Some(2 * (SLOT_TIME + COMPILE_TIME.duration())))
            .map_err(failed("waiting for its answer"))?;
        let answer = line(&mut lines);
        match answer.as_deref().ok().and_then(Answer::parse) {
            Some(Answer::Done) => Ok(Outcome::InCache),
            Some(Answer::Failed(reason)) => Ok(Outcome::Failed(excerpt(reason))),
            Some(Answer::Refused(reason)) => Err(ClientError::Refused(excerpt(reason))),
            None => {
                sent.map_err(failed("sending the module"))?;
                Err(ClientError::Answer(answer.map_err(failed("waiting for its answer"))?))
            }
        }
    }
}

fn line(lines: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    lines.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
