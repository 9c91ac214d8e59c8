//! Parsers of what lies in the functions directory.

#[path = "../../runtime-http/src/store/methods.rs"]
pub mod methods;
#[path = "../../runtime-http/src/store/name.rs"]
pub mod name;
#[path = "../../runtime-http/src/store/settings.rs"]
pub mod settings;
#[path = "../../runtime-http/src/store/unknown_key.rs"]
pub mod unknown_key;
