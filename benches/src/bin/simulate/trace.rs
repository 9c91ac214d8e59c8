//! What comes: requests of several functions, in the order of their arrival.

use crate::random::Random;

/// Microseconds of simulated time.
pub type Time = u64;

pub const SECOND: Time = 1_000_000;

/// What functions have in common, as far as results are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// One function, more than the box can take.
    Flooding,
    /// Several functions, each a small part of the box.
    Quiet,
    /// One function whose requests are half a box.
    Large,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Flooding, Class::Quiet, Class::Large];

    pub fn name(self) -> &'static str {
        match self {
            Class::Flooding => "flooding",
            Class::Quiet => "quiet",
            Class::Large => "large",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub class: Class,
    pub function: usize,
    pub arrives: Time,
    /// MiB of Memory-Request.
    pub units: u64,
    pub runs: Time,
    /// CPU in use while it runs.
    pub millicores: u64,
}

/// How requests of one function come.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub class: Class,
    pub function: usize,
    /// Bursts come as a Poisson process.
    pub bursts_per_second: f64,
    /// Requests of a burst, least and most.
    pub burst: (f64, f64),
    /// Units of a request, least and most.
    pub units: (f64, f64),
    /// Seconds that a request runs, least and most.
    pub runs: (f64, f64),
    pub millicores: u64,
}

/// Of all that is heavy-tailed here: finite mean, infinite variance but for the bounds.
const SHAPE: f64 = 1.5;
/// Requests of a burst come within this time.
const BURST: f64 = 0.01;

impl Stream {
    /// The requests of `seconds`, in any order.
    fn requests(&self, random: &mut Random, seconds: f64, requests: &mut Vec<Request>) {
        let between = |random: &mut Random, (least, most)| random.pareto(SHAPE, least, most);
        let mut at = random.exponential(1.0 / self.bursts_per_second);
        while at < seconds {
            for _ in 0..between(random, self.burst) as u64 {
                requests.push(Request {
                    class: self.class,
                    function: self.function,
                    arrives: ((at + random.exponential(BURST)) * SECOND as f64) as Time,
                    units: between(random, self.units) as u64,
                    runs: (between(random, self.runs) * SECOND as f64) as Time,
                    millicores: self.millicores,
                });
            }
            at += random.exponential(1.0 / self.bursts_per_second);
        }
    }
}

/// The requests of all streams, in the order of their arrival. Each stream's are the same whatever the others are.
pub fn trace(streams: &[Stream], seed: u64, seconds: f64) -> Vec<Request> {
    let mut requests = Vec::new();
    for stream in streams {
        let mut random = Random::new(Random::new(seed.wrapping_add(stream.function as u64)).next());
        stream.requests(&mut random, seconds, &mut requests);
    }
    requests.sort_by_key(|request| request.arrives);
    requests
}

const QUIET: usize = 8;

/// A function that floods, several quiet ones, and one whose requests are large.
pub fn streams() -> Vec<Stream> {
    let flooding = Stream {
        class: Class::Flooding,
        function: 0,
        bursts_per_second: 2.0,
        burst: (25.0, 500.0),
        units: (120.0, 800.0),
        runs: (0.15, 10.0),
        millicores: 500,
    };
    let large = Stream {
        class: Class::Large,
        function: 1,
        bursts_per_second: 0.2,
        burst: (1.0, 2.0),
        units: (3000.0, 4000.0),
        runs: (0.3, 5.0),
        millicores: 1000,
    };
    let quiet = |number: usize| Stream {
        class: Class::Quiet,
        function: 2 + number,
        bursts_per_second: 1.0,
        burst: (1.0, 8.0),
        units: (60.0, 400.0),
        runs: (0.05, 2.0),
        millicores: 250,
    };
    [flooding, large].into_iter().chain((0..QUIET).map(quiet)).collect()
}
