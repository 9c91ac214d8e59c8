//! `wasi:config/store`: the function's own configuration.

use wasmtime_wasi_config::WasiConfigVariables;

/// What `wasi:config/store` gives a guest.
#[derive(Default)]
pub struct GuestConfig(WasiConfigVariables);

impl GuestConfig {
    pub fn variables(&self) -> &WasiConfigVariables {
        &self.0
    }
}

impl FromIterator<(String, String)> for GuestConfig {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(values: I) -> Self {
        GuestConfig(values.into_iter().collect())
    }
}
