//! Why nothing new may start although there is room.

/// What can be short beside the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    /// CPU in use.
    Cpu,
    /// Memory in use, not just requested.
    Memory,
}

impl Gate {
    pub const ALL: [Gate; 2] = [Gate::Cpu, Gate::Memory];

    /// The value of the metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Cpu => "cpu",
            Gate::Memory => "memory",
        }
    }
}

/// Which gates are closed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClosedGates([bool; Gate::ALL.len()]);

impl ClosedGates {
    pub fn set(&mut self, gate: Gate, open: bool) {
        self.0[gate as usize] = !open;
    }

    pub fn is_empty(self) -> bool {
        self.0 == [false; Gate::ALL.len()]
    }

    pub fn iter(self) -> impl Iterator<Item = Gate> {
        Gate::ALL.into_iter().filter(move |gate| self.0[*gate as usize])
    }
}
