//! Measurements in turns, the middle of many, and how far they lie apart.

/// Measures `N` things in turns, by their indices: the results of `rounds` rounds. Each comes first as often as the others. The round before
/// these fills the kernel's caches, and does not count.
pub fn in_turns<const N: usize, T>(rounds: usize, mut measure: impl FnMut(usize) -> T) -> [Vec<T>; N] {
    let mut results = [const { Vec::new() }; N];
    for round in 0..=rounds {
        for turn in 0..N {
            let index = (round + turn) % N;
            let result = measure(index);
            if round > 0 {
                results[index].push(result);
            }
        }
    }
    results
}

pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable"));
    values[values.len() / 2]
}

/// Median, least and greatest of at least one value.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let values: Vec<f64> = values.into_iter().collect();
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        let greatest = values.iter().copied().fold(f64::MIN, f64::max);
        Spread { median: median(values), least, greatest }
    }

    /// "median (least to greatest)".
    pub fn text(self, digits: usize) -> String {
        let Spread { median, least, greatest } = self;
        format!("{median:.digits$} ({least:.digits$} to {greatest:.digits$})")
    }
}
