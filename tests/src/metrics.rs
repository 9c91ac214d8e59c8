//! Prometheus' text format, as far as tests ask.

/// The metrics of one moment.
pub struct Metrics(String);

impl Metrics {
    pub fn new(text: String) -> Metrics {
        Metrics(text)
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    /// The sum of all series called `name` that have all of `labels`, written `result="ok"`; 0 if there is none.
    ///
    /// # Panics
    /// If a value is no number.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            let (has, value) = rest.rsplit_once(' ')?;
            labels.iter().all(|label| has.contains(label)).then(|| value.parse::<f64>().expect("a metric's value"))
        });
        series.sum()
    }
}
