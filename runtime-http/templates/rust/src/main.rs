//! Greets its first argument, or the world, and says how much came in the request's body.

use std::{env, io};

fn main() -> io::Result<()> {
    let name = env::args().nth(1).unwrap_or_else(|| "world".to_owned());
    let bytes = io::copy(&mut io::stdin(), &mut io::sink())?;
    // Standard output is the answer; what is written to standard error is in the log.
    println!("Hello, {name}! You sent {bytes} bytes.");
    Ok(())
}
