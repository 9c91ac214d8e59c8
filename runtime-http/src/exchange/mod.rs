//! The bytes of requests and answers on their way through the box: who may hold how many, for how long, and what frames them.
//!
//! Nothing here knows a module, a route or a problem's code.
//!
//! - [`budget`]: the memory that connections and bodies may hold, beside what invocations hold
//! - [`request_body`]: from the client to the guest; [`body_end`]: how it ended; [`pace`]: how slow a client may be; [`expectation`]: one that waits to
//!   be asked for it; [`read_ahead`]: what is read before it is wanted
//! - [`response_body`]: from the guest to the client; [`framing`]: how long a response is; [`trailers`]: what may follow it

pub mod body_end;
pub mod budget;
pub mod expectation;
pub mod framing;
pub mod pace;
mod read_ahead;
pub mod request_body;
pub mod response_body;
pub mod trailers;

#[cfg(test)]
mod tests;
