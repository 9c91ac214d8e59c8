//! Draws a picture of coloured discs, blurs it with a Gaussian filter and answers with the PNG.
//!
//!     cargo build --release --target wasm32-wasip1 -p image-blur
//!     curl 'localhost:8095/image-blur?arg=1000&arg=10' -o blurred.png
//!
//! Arguments: SIZE in pixels (1000), SIGMA of the filter in pixels (10), SEED of the picture (1).

use std::env;
use std::io::{self, Write};
use std::process;
use std::str::FromStr;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Rgb, RgbImage, imageops};

fn main() -> io::Result<()> {
    let size: u32 = arg(1, 1000);
    let sigma: f32 = arg(2, 10.0);
    let seed: u64 = arg(3, 1);
    if size == 0 || !(sigma > 0.0 && sigma.is_finite()) {
        eprintln!("SIZE and SIGMA must be above zero");
        process::exit(2);
    }

    let blurred = imageops::blur(&picture(size, seed), sigma);

    let mut png = Vec::new();
    blurred
        .write_with_encoder(PngEncoder::new_with_quality(
            &mut png,
            CompressionType::Fast,
            FilterType::Up,
        ))
        .expect("a picture of at least one pixel can be encoded");
    io::stdout().write_all(&png)
}

/// Discs of a tenth of the picture's width, each in a colour drawn from `seed`, on white.
fn picture(size: u32, seed: u64) -> RgbImage {
    let mut random = Random(seed);
    let colours: Vec<Rgb<u8>> = (0..100)
        .map(|_| {
            let [red, green, blue, ..] = random.next().to_le_bytes();
            Rgb([red, green, blue])
        })
        .collect();

    let cell = size.div_ceil(10);
    RgbImage::from_fn(size, size, |x, y| {
        let (dx, dy) = ((x % cell).abs_diff(cell / 2), (y % cell).abs_diff(cell / 2));
        if u64::from(dx).pow(2) + u64::from(dy).pow(2) <= u64::from(cell / 2).pow(2) {
            colours[(y / cell * 10 + x / cell) as usize]
        } else {
            Rgb([255; 3])
        }
    })
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
