//! `wasi:logging/logging`: lines that a guest gives to the log, in the account of its standard error.

use wasmtime::component::{HasSelf, Linker};

use self::bindings::wasi::logging::logging::{Host, Level, add_to_linker};
use super::component::ComponentHost;
use crate::sandbox::stderr::Severity;

mod bindings {
    wasmtime::component::bindgen!({ path: "wit/logging", world: "imports", imports: { default: trappable } });
}

/// # Errors
/// If something else has its name.
pub(super) fn link(linker: &mut Linker<ComponentHost>) -> wasmtime::Result<()> {
    add_to_linker::<_, HasSelf<ComponentHost>>(linker, |host| host)
}

impl Host for ComponentHost {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let severity = match level {
            Level::Trace => Severity::Trace,
            Level::Debug => Severity::Debug,
            Level::Info => Severity::Info,
            Level::Warn => Severity::Warn,
            Level::Error => Severity::Error,
            Level::Critical => Severity::Critical,
        };
        self.log().log(severity, &context, &message);
        Ok(())
    }
}
