//! Compresses many short strings with LZ4, each by itself, and prints the sizes before and after.
//!
//!     cargo build --release --target wasm32-wasip1 -p lz4
//!     curl 'localhost:8095/lz4?arg=200000&arg=100'
//!
//! Arguments: STRINGS (200000), LENGTH of each in bytes (100), SEED of their text (1).

use std::env;
use std::process;
use std::str::FromStr;

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

const WORDS: [&str; 16] = [
    "amber ", "basin ", "cedar ", "delta ", "ember ", "fjord ", "grove ", "haven ", "inlet ",
    "jetty ", "knoll ", "ledge ", "marsh ", "north ", "ocean ", "point ",
];

fn main() {
    let strings: u32 = arg(1, 200_000);
    let length: usize = arg(2, 100);
    let seed: u64 = arg(3, 1);

    let mut random = Random(seed);
    let mut text = String::with_capacity(length);
    // Both are used again for each string: allocating them anew would cost more than the compression.
    let mut table = CompressTable::default();
    let mut compressed = vec![0; get_maximum_output_size(length)];

    let mut bytes_out = 0;
    let mut checksum = Checksum::default();
    for _ in 0..strings {
        fill(&mut text, length, &mut random);
        let size = compress_into_with_table(text.as_bytes(), &mut compressed, &mut table)
            .expect("the buffer holds the largest possible output");
        bytes_out += size as u64;
        checksum.add(&compressed[..size]);
    }

    let bytes_in = u64::from(strings) * length as u64;
    println!(
        "{strings} strings, {bytes_in} bytes to {bytes_out}, checksum {:016x}",
        checksum.0
    );
}

/// Makes `text` a string of `length` bytes, of words drawn by `random`.
fn fill(text: &mut String, length: usize, random: &mut Random) {
    text.clear();
    while text.len() < length {
        let word = WORDS[random.next() as usize % WORDS.len()];
        text.push_str(&word[..word.len().min(length - text.len())]);
    }
}

/// SplitMix64: plenty for test data, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// 64-bit FNV-1a.
struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
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
