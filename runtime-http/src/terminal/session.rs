//! The terminal, as long as somebody looks: a thread asks the box each second, this one draws and reads keys.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::status::StatusError;
use super::{
    ask::ask,
    screen::{self, Shows},
};
use crate::overview::{Overview, query::Query};

/// Between two looks at the box.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two looks at what the box has answered, while no key is pressed.
const KEYS: Duration = Duration::from_millis(50);
/// Lines that a page scrolls.
const PAGE: usize = 20;

type Answer = Result<Overview, StatusError>;

/// Shows the box until a key ends it.
///
/// # Errors
/// [`StatusError`], if the box does not answer any more, or there is no terminal.
pub fn watch(address: &str, shows: Shows, query: Query) -> Result<(), StatusError> {
    // Before the screen is taken: who watches no box is told in the ordinary way.
    let first = ask(address, &query)?;
    let asked = Arc::new(Mutex::new(query.clone()));
    let (wake, woken) = sync_channel(1);
    let (answers, answered) = sync_channel(1);
    thread::Builder::new().name("asks".into()).spawn({
        let (address, asked) = (address.to_owned(), asked.clone());
        move || ask_again(&address, &asked, &woken, &answers)
    })?;
    let mut terminal = ratatui::try_init()?;
    let mut session = Session { address, shows, query, overview: first };
    let result = session.run(&mut terminal, &asked, &wake, &answered);
    // Also where it failed: the terminal is somebody else's from now on.
    let restored = ratatui::try_restore();
    result?;
    Ok(restored?)
}

/// Until nobody listens, or the box does not answer.
fn ask_again(address: &str, asked: &Mutex<Query>, woken: &Receiver<()>, answers: &SyncSender<Answer>) {
    loop {
        match woken.recv_timeout(PERIOD) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let query = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = ask(address, &query);
        let ends = answer.is_err();
        if answers.send(answer).is_err() || ends {
            return;
        }
    }
}

struct Session<'a> {
    address: &'a str,
    shows: Shows,
    query: Query,
    overview: Overview,
}

/// What a key does.
#[derive(Debug, PartialEq, Eq)]
enum Does {
    Ends,
    Asks,
    Nothing,
}

impl Session<'_> {
    fn run(
        &mut self,
        terminal: &mut ratatui::DefaultTerminal,
        asked: &Mutex<Query>,
        wake: &SyncSender<()>,
        answered: &Receiver<Answer>,
    ) -> Result<(), StatusError> {
        loop {
            terminal.draw(|frame| screen::draw(frame, self.address, self.shows, &self.query, &self.overview))?;
            loop {
                match answered.try_recv() {
                    Ok(overview) => {
                        self.overview = overview?;
                        break;
                    }
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => {
                        return Err(io::Error::other("who asks the box has ended").into());
                    }
                }
                if !event::poll(KEYS)? {
                    continue;
                }
                match event::read()? {
                    Event::Key(key) => match press(key, &mut self.query, self.overview.functions.matching) {
                        Does::Ends => return Ok(()),
                        Does::Asks => {
                            asked.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.query);
                            // If it is awake already, it asks for this.
                            let _ = wake.try_send(());
                        }
                        Does::Nothing => {}
                    },
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
    }
}

fn press(key: KeyEvent, query: &mut Query, matching: u64) -> Does {
    if key.kind == KeyEventKind::Release {
        return Does::Nothing;
    }
    let last = usize::try_from(matching).unwrap_or(usize::MAX).saturating_sub(1);
    let before = query.clone();
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Does::Ends,
        KeyCode::Char('q') | KeyCode::Esc => return Does::Ends,
        KeyCode::Char('s') => (query.sort, query.offset) = (query.sort.next(), 0),
        KeyCode::Down => query.offset = (query.offset + 1).min(last),
        KeyCode::Up => query.offset = query.offset.saturating_sub(1),
        KeyCode::PageDown => query.offset = (query.offset + PAGE).min(last),
        KeyCode::PageUp => query.offset = query.offset.saturating_sub(PAGE),
        KeyCode::Home => query.offset = 0,
        _ => {}
    }
    if *query == before { Does::Nothing } else { Does::Asks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::query::Sort;

    #[test]
    fn keys_sort_scroll_and_end() {
        let mut query = Query::default();
        let mut press =
            |code| (press(KeyEvent::new(code, KeyModifiers::NONE), &mut query, 30), query.sort, query.offset);
        assert_eq!(press(KeyCode::Down), (Does::Asks, Sort::Cpu, 1));
        assert_eq!(press(KeyCode::PageDown), (Does::Asks, Sort::Cpu, 21));
        assert_eq!(press(KeyCode::PageDown), (Does::Asks, Sort::Cpu, 29));
        assert_eq!(press(KeyCode::Down), (Does::Nothing, Sort::Cpu, 29));
        assert_eq!(press(KeyCode::Char('s')), (Does::Asks, Sort::Memory, 0));
        assert_eq!(press(KeyCode::Up), (Does::Nothing, Sort::Memory, 0));
        assert_eq!(press(KeyCode::Char('c')), (Does::Nothing, Sort::Memory, 0));
        assert_eq!(press(KeyCode::Char('q')).0, Does::Ends);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(super::press(interrupt, &mut query, 0), Does::Ends);
    }
}
