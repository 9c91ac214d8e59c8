//! Greets its first argument, or the world, and tells what came in the request body.
//!
//!     cargo build --release --target wasm32-wasip1 -p rust-hello
//!     curl 'localhost:8095/rust-hello?arg=Ada' -d 'some text'
//!
//! This is all a function is: arguments, standard input, standard output. What goes to standard
//! error is logged, and an exit code other than 0 makes the request fail.

use std::env;
use std::io::{self, Read};

fn main() -> io::Result<()> {
    let name = env::args().nth(1).unwrap_or_else(|| "world".to_owned());
    println!("Hello, {name}!");

    let mut body = Vec::new();
    io::stdin().read_to_end(&mut body)?;
    if !body.is_empty() {
        println!(
            "You sent {} bytes: {}",
            body.len(),
            String::from_utf8_lossy(&body)
        );
    }
    Ok(())
}
