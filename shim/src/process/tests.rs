//! Every order in which a process's transitions can be asked for, up to a depth, held against what containerd relies on.

use std::time::{Duration, SystemTime};

use super::*;

const DEPTH: usize = 7;

#[derive(Debug, Clone, Copy)]
enum Step {
    Starting,
    Started,
    StartFailed,
    Paused,
    Resumed,
    Exited,
}

const STEPS: [Step; 6] = [Step::Starting, Step::Started, Step::StartFailed, Step::Paused, Step::Resumed, Step::Exited];

fn exit(at: usize) -> Exit {
    let status = u32::try_from(at).unwrap();
    Exit { status, at: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(status)) }
}

/// Whether it was taken.
fn take(process: &mut Process, step: Step, at: usize) -> bool {
    match step {
        Step::Starting => process.starting().is_ok(),
        Step::Started => process.started().is_ok(),
        Step::StartFailed => {
            let before = process.state();
            process.start_failed();
            process.state() != before
        }
        Step::Paused => process.pausable().is_ok() && process.paused().is_ok(),
        Step::Resumed => process.resumed().is_ok(),
        Step::Exited => {
            process.stopped(exit(at));
            true
        }
    }
}

/// Where a step leads, if it may be taken: the only place beside `Process` that knows.
fn leads(from: State, step: Step) -> Option<State> {
    match (from, step) {
        (State::Created, Step::Starting) => Some(State::Starting),
        (State::Starting, Step::Started) | (State::Paused, Step::Resumed) => Some(State::Running),
        (State::Starting, Step::StartFailed) => Some(State::Created),
        (State::Running, Step::Paused) => Some(State::Paused),
        (_, Step::Exited) => Some(State::Stopped),
        _ => None,
    }
}

fn all_orders(steps: &mut Vec<Step>, check: &mut impl FnMut(&[Step])) {
    check(steps);
    if steps.len() == DEPTH {
        return;
    }
    for step in STEPS {
        steps.push(step);
        all_orders(steps, check);
        steps.pop();
    }
}

#[test]
fn no_order_of_steps_leads_astray() {
    let mut orders = 0;
    all_orders(&mut Vec::new(), &mut |steps| {
        orders += 1;
        let mut process = Process::new(Addresses::default());
        let early = process.watch();
        let (mut state, mut first) = (State::Created, None);
        for (at, step) in steps.iter().enumerate() {
            let to = leads(state, *step);
            assert_eq!(take(&mut process, *step, at), to.is_some(), "{steps:?} at {at}");
            state = to.unwrap_or(state);
            if matches!(step, Step::Exited) {
                first = first.or(Some(exit(at)));
            }
            assert_eq!(process.state(), state, "{steps:?} at {at}");
            // The end comes once, and is final; who watched before hears of it as who asks now.
            assert_eq!(process.exit(), first, "{steps:?} at {at}");
            assert_eq!(*early.borrow(), first, "{steps:?} at {at}");
            assert_eq!(process.deletable().is_ok(), matches!(state, State::Created | State::Stopped), "{steps:?}");
            assert_eq!(first.is_some(), state == State::Stopped, "{steps:?} at {at}");
        }
    });
    assert_eq!(orders, (0..=DEPTH as u32).map(|depth| STEPS.len().pow(depth)).sum::<usize>());
}

/// Who waits for a start that fails is told that it did not run; who waits for the next one is not.
#[test]
fn a_released_watcher_says_nothing_of_the_next_start() {
    let mut process = Process::new(Addresses::default());
    let first = process.watch();
    process.starting().unwrap();
    process.start_failed();
    process.release(exit(0));
    let second = process.watch();
    assert_eq!((*first.borrow(), *second.borrow(), process.exit()), (Some(exit(0)), None, None));
    process.starting().unwrap();
    process.started().unwrap();
    process.stopped(exit(5));
    assert_eq!((*first.borrow(), *second.borrow()), (Some(exit(0)), Some(exit(5))));
}
