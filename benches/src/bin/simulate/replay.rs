//! One run of a trace through a discipline, on a clock of its own.

use std::{cmp::Reverse, collections::BinaryHeap};

use wasmbox::admission::Capacity;

use crate::{
    discipline::{Discipline, Fate},
    trace::{Request, SECOND, Time},
};

/// The box that is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub capacity: Capacity,
    /// Nothing new starts while more is in use. Running requests do not slow one another down.
    pub most_millicores: u64,
    /// How long a request waits at most.
    pub patience: Time,
}

/// How often the CPU in use is looked at.
const SAMPLE: Time = SECOND / 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Waited(Time),
    Refused,
    TimedOut,
}

pub struct Outcome {
    /// By request.
    pub ends: Vec<End>,
    /// Part of the capacity that was in use, on average, until the last arrival.
    pub utilisation: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends(usize),
    Arrives(usize),
    GivesUp(usize),
    Sample,
}

struct Replay<'a> {
    requests: &'a [Request],
    events: BinaryHeap<Reverse<(Time, Event)>>,
    now: Time,
    ends: Vec<Option<End>>,
    units: u64,
    millicores: u64,
}

impl Replay<'_> {
    fn heed(&mut self, fate: Fate) {
        for request in fate.start {
            let Request { arrives, units, runs, millicores, .. } = self.requests[request];
            self.ends[request] = Some(End::Waited(self.now - arrives));
            self.units += units;
            self.millicores += millicores;
            self.events.push(Reverse((self.now + runs, Event::Ends(request))));
        }
        for request in fate.refused {
            self.ends[request] = Some(End::Refused);
        }
    }
}

/// Runs `requests`, which are in the order of their arrival.
pub fn replay(machine: Machine, requests: &[Request], discipline: &mut dyn Discipline) -> Outcome {
    let arrivals = requests.iter().enumerate();
    let arrivals = arrivals.map(|(number, request)| Reverse((request.arrives, Event::Arrives(number))));
    let mut replay = Replay {
        requests,
        events: arrivals.collect(),
        now: 0,
        ends: vec![None; requests.len()],
        units: 0,
        millicores: 0,
    };
    replay.events.push(Reverse((SAMPLE, Event::Sample)));
    let last = requests.last().map_or(0, |request| request.arrives);
    let mut used: u128 = 0;
    while let Some(Reverse((at, event))) = replay.events.pop() {
        let until = at.min(last).saturating_sub(replay.now);
        used += u128::from(until) * u128::from(replay.units);
        replay.now = at;
        let fate = match event {
            Event::Arrives(request) => {
                let fate = discipline.arrive(request);
                if !fate.start.contains(&request) && !fate.refused.contains(&request) {
                    replay.events.push(Reverse((at + machine.patience, Event::GivesUp(request))));
                }
                fate
            }
            Event::Ends(request) => {
                replay.units -= requests[request].units;
                replay.millicores -= requests[request].millicores;
                discipline.release(request)
            }
            Event::GivesUp(request) if replay.ends[request].is_none() => {
                replay.ends[request] = Some(End::TimedOut);
                discipline.leave(request)
            }
            Event::GivesUp(_) => Fate::default(),
            Event::Sample => {
                if !replay.events.is_empty() {
                    replay.events.push(Reverse((at + SAMPLE, Event::Sample)));
                }
                discipline.set_gate(replay.millicores <= machine.most_millicores)
            }
        };
        replay.heed(fate);
    }
    let ends = replay.ends.into_iter().map(|end| end.expect("who does not start gives up at the end of his patience"));
    let whole = u128::from(last) * u128::from(machine.capacity.units);
    Outcome { ends: ends.collect(), utilisation: used as f64 / whole.max(1) as f64 }
}
