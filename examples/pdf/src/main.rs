//! Writes an illustrated price list, ten items to a page, and answers with the PDF.
//!
//!     cargo build --release --target wasm32-wasip1 -p pdf
//!     curl 'localhost:8095/pdf?arg=500' -o list.pdf
//!
//! Arguments: ITEMS (500), SEED of the pictures and prices (1).

use std::env;
use std::io::{self, Write};
use std::process;
use std::str::FromStr;

use miniz_oxide::deflate::compress_to_vec_zlib;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str};

const ITEMS_PER_PAGE: u32 = 10;
/// A4, in points.
const PAGE: Rect = Rect {
    x1: 0.0,
    y1: 0.0,
    x2: 595.0,
    y2: 842.0,
};
const MARGIN: f32 = 50.0;
const ROW_HEIGHT: f32 = 72.0;
const PICTURE_PIXELS: usize = 64;
const PICTURE_POINTS: f32 = 56.0;
const DEFLATE_LEVEL: u8 = 6;
const FONT: Name = Name(b"F1");

struct Item {
    number: u32,
    cents: u64,
    /// RGB, row by row.
    picture: Vec<u8>,
}

fn main() -> io::Result<()> {
    let count: u32 = arg(1, 500);
    let mut random = Random(arg(2, 1));
    let items: Vec<Item> = (1..=count)
        .map(|number| item(number, &mut random))
        .collect();
    io::stdout().write_all(&document(&items))
}

fn item(number: u32, random: &mut Random) -> Item {
    Item {
        number,
        cents: 100 + random.next() % 100_000,
        picture: picture(random.next()),
    }
}

/// A pattern of 8 by 8 tiles, symmetric from left to right, with a shade over it.
fn picture(pattern: u64) -> Vec<u8> {
    let [red, green, blue, ..] = pattern.to_be_bytes();
    let mut pixels = Vec::with_capacity(PICTURE_PIXELS * PICTURE_PIXELS * 3);
    for y in 0..PICTURE_PIXELS {
        for x in 0..PICTURE_PIXELS {
            let (column, row) = (x * 8 / PICTURE_PIXELS, y * 8 / PICTURE_PIXELS);
            let bit = row * 4 + column.min(7 - column);
            let shade = (x + y) as u8;
            if pattern >> bit & 1 == 1 {
                pixels.extend([red, green, blue].map(|channel| channel / 2 + shade / 2));
            } else {
                pixels.extend([255 - shade / 4; 3]);
            }
        }
    }
    pixels
}

fn document(items: &[Item]) -> Vec<u8> {
    let mut pdf = Pdf::new();
    let mut next = Ref::new(1);
    let (catalog, page_tree, font) = (next.bump(), next.bump(), next.bump());

    let pages: Vec<Ref> = if items.is_empty() {
        vec![page(&mut pdf, &mut next, page_tree, font, &[])]
    } else {
        items
            .chunks(ITEMS_PER_PAGE as usize)
            .map(|items| page(&mut pdf, &mut next, page_tree, font, items))
            .collect()
    };

    pdf.catalog(catalog).pages(page_tree);
    pdf.pages(page_tree).count(pages.len() as i32).kids(pages);
    pdf.type1_font(font).base_font(Name(b"Helvetica"));
    pdf.finish()
}

/// Writes one page with its pictures and returns the page's reference.
fn page(pdf: &mut Pdf, next: &mut Ref, parent: Ref, font: Ref, items: &[Item]) -> Ref {
    let (id, contents) = (next.bump(), next.bump());
    let mut content = Content::new();
    let mut images = Vec::with_capacity(items.len());

    let mut y = PAGE.y2 - MARGIN;
    for item in items {
        y -= ROW_HEIGHT;
        let name = format!("Im{}", item.number);
        draw(&mut content, item, &name, y);
        images.push((name, image(pdf, next.bump(), &item.picture)));
    }

    let content = compress_to_vec_zlib(&content.finish(), DEFLATE_LEVEL);
    pdf.stream(contents, &content).filter(Filter::FlateDecode);

    let mut page = pdf.page(id);
    page.media_box(PAGE).parent(parent).contents(contents);
    let mut resources = page.resources();
    resources.fonts().pair(FONT, font);
    resources.x_objects().pairs(
        images
            .iter()
            .map(|(name, image)| (Name(name.as_bytes()), *image)),
    );
    resources.finish();
    page.finish();
    id
}

/// Draws an item's picture and text into the row that starts at height `y`.
fn draw(content: &mut Content, item: &Item, picture: &str, y: f32) {
    content.save_state();
    content.transform([PICTURE_POINTS, 0.0, 0.0, PICTURE_POINTS, MARGIN, y]);
    content.x_object(Name(picture.as_bytes()));
    content.restore_state();

    let title = format!("Item {}", item.number);
    let price = format!("{}.{:02} EUR", item.cents / 100, item.cents % 100);
    let left = MARGIN + PICTURE_POINTS + 20.0;
    for (size, height, text) in [(14.0, 34.0, title), (11.0, 14.0, price)] {
        content.begin_text();
        content.set_font(FONT, size);
        content.next_line(left, y + height);
        content.show(Str(text.as_bytes()));
        content.end_text();
    }
}

fn image(pdf: &mut Pdf, id: Ref, pixels: &[u8]) -> Ref {
    let compressed = compress_to_vec_zlib(pixels, DEFLATE_LEVEL);
    let mut image = pdf.image_xobject(id, &compressed);
    image.filter(Filter::FlateDecode);
    image
        .width(PICTURE_PIXELS as i32)
        .height(PICTURE_PIXELS as i32);
    image.color_space().device_rgb();
    image.bits_per_component(8);
    id
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
