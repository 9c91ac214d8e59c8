//! Generates an RSA key pair and answers with the private key (which contains the public one) as
//! PKCS#8 PEM.
//!
//!     cargo build --release --target wasm32-wasip1 -p rsa-keygen
//!     curl localhost:8095/rsa-keygen | openssl pkey -noout -text
//!
//! Arguments: BITS (2048), SEED (none: random numbers of the host). The same seed gives the same key
//! every time, for tests and measurements and for nothing else.

use std::env;
use std::process;
use std::str::FromStr;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use rsa::RsaPrivateKey;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};

fn main() {
    let bits: usize = arg(1, 2048);
    if !(512..=8192).contains(&bits) {
        eprintln!("BITS must be from 512 to 8192");
        process::exit(2);
    }
    let mut rng = match env::args().nth(2) {
        Some(_) => ChaCha20Rng::seed_from_u64(arg(2, 0)),
        None => ChaCha20Rng::from_entropy(),
    };

    let key = RsaPrivateKey::new(&mut rng, bits).expect("keys of these lengths exist");
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .expect("a new key can be encoded");
    print!("{}", pem.as_str());
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
