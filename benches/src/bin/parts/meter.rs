//! What one part costs: measured on the calling thread, by its CPU clock, in batches.

use std::{hint::black_box, time::Duration};

use wasmtime::{Result, error::Context};

use wasmbox::threads::cpu_time;

/// Repetitions in a batch, whose mean is one sample.
const REPETITIONS: u32 = 2000;

/// CPU time of one part, in microseconds: of the samples the median, the least and the greatest.
#[derive(Debug, Clone)]
pub struct Part {
    pub name: &'static str,
    pub median_us: f64,
    pub least_us: f64,
    pub greatest_us: f64,
}

impl Part {
    /// # Errors
    /// Without a sample.
    pub fn of(name: &'static str, mut samples: Vec<f64>) -> Result<Part> {
        samples.sort_by(f64::total_cmp);
        let median_us = *samples.get(samples.len() / 2).with_context(|| format!("no sample of {name}"))?;
        Ok(Part { name, median_us, least_us: samples[0], greatest_us: samples[samples.len() - 1] })
    }
}

/// Measures in so many batches.
#[derive(Debug)]
pub struct Meter {
    pub batches: u32,
    /// What reading the clock costs, which is in each lap.
    reading_us: f64,
}

/// Consecutive parts of something that is repeated: the sums of their times.
#[derive(Debug)]
pub struct Laps<const N: usize> {
    last: Duration,
    sums: [Duration; N],
}

impl<const N: usize> Laps<N> {
    pub fn new() -> Self {
        Laps { last: cpu_time(), sums: [Duration::ZERO; N] }
    }

    /// What was done since the last lap is of the part `index`.
    pub fn lap(&mut self, index: usize) {
        let now = cpu_time();
        self.sums[index] += now.saturating_sub(self.last);
        self.last = now;
    }

    /// What was done since the last lap is of none.
    pub fn skip(&mut self) {
        self.last = cpu_time();
    }

    pub fn micros(&self) -> [f64; N] {
        self.sums.map(micros)
    }
}

impl Meter {
    /// # Errors
    /// Without a batch.
    pub fn new(batches: u32) -> Result<Meter> {
        let unknown = Meter { batches, reading_us: 0.0 };
        let reading_us = unknown.alone("reading the clock", || Ok(cpu_time()))?.median_us;
        Ok(Meter { reading_us, ..unknown })
    }

    /// The part that `once` is. What it gives is dropped in it.
    ///
    /// # Errors
    /// As `once`.
    pub fn alone<T>(&self, name: &'static str, mut once: impl FnMut() -> Result<T>) -> Result<Part> {
        let mut samples = Vec::new();
        for _ in 0..=self.batches {
            let before = cpu_time();
            for _ in 0..REPETITIONS {
                black_box(once()?);
            }
            samples.push(micros(cpu_time().saturating_sub(before)) / f64::from(REPETITIONS));
        }
        // The first batch finds caches cold.
        samples.remove(0);
        Part::of(name, samples)
    }

    /// The parts of `once`, which tells the end of each by [`Laps::lap`].
    ///
    /// # Errors
    /// As `once`.
    pub fn laps<const N: usize>(
        &self,
        names: [&'static str; N],
        mut once: impl FnMut(&mut Laps<N>) -> Result<()>,
    ) -> Result<Vec<Part>> {
        let mut batches = Vec::new();
        for _ in 0..=self.batches {
            let mut laps = Laps::new();
            for _ in 0..REPETITIONS {
                laps.skip();
                once(&mut laps)?;
            }
            batches.push(laps.micros().map(|sum| sum / f64::from(REPETITIONS) - self.reading_us));
        }
        batches.remove(0);
        let part = |(index, name)| Part::of(name, batches.iter().map(|means: &[f64; N]| means[index]).collect());
        names.into_iter().enumerate().map(part).collect()
    }
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_the_median_of_its_samples() {
        let part = Part::of("part", vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((part.median_us, part.least_us, part.greatest_us), (2.0, 1.0, 3.0));
        assert!(Part::of("part", Vec::new()).is_err());
    }
}
