//! Hashes passwords with scrypt (RFC 7914) and prints how many there were and the last hash.
//!
//!     cargo build --release --target wasm32-wasip1 --bin scrypt
//!     curl 'localhost:8095/scrypt?arg=1000&arg=1024'
//!
//! Arguments: HASHES (1000), N (1024, a power of two), R (1), P (1). A hash takes 128 * N * R bytes
//! of memory. The parameters are small to make the work countable; for real passwords use N = 131072
//! and R = 8 or more.

use std::env;
use std::process;
use std::str::FromStr;

use scrypt::Params;

const HASH_BYTES: usize = 64;

fn main() {
    let hashes: u32 = arg(1, 1000);
    let n: u64 = arg(2, 1024);
    let r: u32 = arg(3, 1);
    let p: u32 = arg(4, 1);

    if !n.is_power_of_two() {
        fail("N must be a power of two");
    }
    let params = Params::new(n.trailing_zeros() as u8, r, p)
        .unwrap_or_else(|error| fail(&format!("N = {n}, R = {r}, P = {p}: {error}")));

    let mut hash = [0; HASH_BYTES];
    for i in 0..hashes {
        let password = format!("password {i}");
        let salt = format!("salt {i}");
        scrypt::scrypt(password.as_bytes(), salt.as_bytes(), &params, &mut hash)
            .expect("64 bytes is a valid length");
    }

    print!("{hashes} hashes of {HASH_BYTES} bytes, N={n} r={r} p={p}, last ");
    for byte in hash {
        print!("{byte:02x}");
    }
    println!();
}

/// The argument at `position`, or `default` where it is missing.
fn arg<T: FromStr>(position: usize, default: T) -> T {
    let Some(text) = env::args().nth(position) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| {
        eprintln!("argument {position}: {text:?} is not a number in range");
        process::exit(2)
    })
}

fn fail(reason: &str) -> ! {
    eprintln!("{reason}");
    process::exit(2)
}
