//! What components may need that an operator turns on or off.

use super::{imports, unusable::Unusable};

/// Which of it a box has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct OptionalInterfaces {
    /// Components of WASI 0.3
    #[arg(long)]
    pub wasi_p3: bool,
    /// What functions keep
    #[arg(long)]
    pub keyvalue: bool,
}

const KEYVALUE: &str = "wasi:keyvalue/";

impl OptionalInterfaces {
    /// For who compiles for any box.
    pub const ALL: OptionalInterfaces = OptionalInterfaces { wasi_p3: true, keyvalue: true };

    /// As the process that compiles is told.
    pub(super) fn arguments(self) -> impl Iterator<Item = &'static str> {
        [(self.wasi_p3, "--wasi-p3"), (self.keyvalue, "--keyvalue")]
            .into_iter()
            .filter_map(|(on, flag)| on.then_some(flag))
    }

    /// # Errors
    /// What is off, of what a component with these imports needs.
    pub fn check<'a>(self, is_p3: bool, mut imports: impl Iterator<Item = &'a str>) -> Result<(), Unusable> {
        if is_p3 && !self.wasi_p3 {
            return Err(Unusable::P3Off);
        }
        if !self.keyvalue && imports.any(|name| name.starts_with(KEYVALUE)) {
            return Err(Unusable::KeyvalueOff);
        }
        Ok(())
    }

    /// Whether `bytes`, of which nothing is known yet, may need what is off: whoever compiles for other boxes, too, would not see that.
    pub fn may_miss(self, bytes: &[u8]) -> bool {
        let needs_keyvalue = || memchr::memmem::find(bytes, KEYVALUE.as_bytes()).is_some();
        (!self.wasi_p3 && imports::may_be_p3(bytes)) || (!self.keyvalue && needs_keyvalue())
    }
}
