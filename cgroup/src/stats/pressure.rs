//! Pressure stall information (PSI): `cpu.pressure`, `memory.pressure`, `io.pressure` of cgroup v2.

/// For how long tasks have waited.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one of them.
    pub some: Option<Stall>,
    /// All of them at once.
    pub full: Option<Stall>,
}

/// The share of time, percent, in the last 10, 60 and 300 seconds; and the sum, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Pressure {
    /// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full ...`.
    pub fn parse(text: &str) -> Pressure {
        let mut pressure = Pressure::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let kind = words.next();
            let mut stall = Stall::default();
            for (name, value) in words.filter_map(|word| word.split_once('=')) {
                match name {
                    "avg10" => stall.avg10 = value.parse().unwrap_or(0.0),
                    "avg60" => stall.avg60 = value.parse().unwrap_or(0.0),
                    "avg300" => stall.avg300 = value.parse().unwrap_or(0.0),
                    "total" => stall.total = value.parse().unwrap_or(0),
                    _ => {}
                }
            }
            match kind {
                Some("some") => pressure.some = Some(stall),
                Some("full") => pressure.full = Some(stall),
                _ => {}
            }
        }
        pressure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pressure() {
        let text =
            "some avg10=1.50 avg60=0.00 avg300=0.25 total=42\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=7\nodd\n";
        let some = Stall { avg10: 1.5, avg60: 0.0, avg300: 0.25, total: 42 };
        let full = Stall { avg10: 0.1, avg60: 0.0, avg300: 0.0, total: 7 };
        assert_eq!(Pressure::parse(text), Pressure { some: Some(some), full: Some(full) });
        // Of the processor there is no `full` with older kernels.
        assert_eq!(Pressure::parse("some total=1\n").full, None);
        assert_eq!(Pressure::parse(""), Pressure::default());
    }
}
