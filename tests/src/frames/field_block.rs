//! Field blocks (RFC 7541): nothing in those that are sent is indexed or compressed; of those of answers the status is read.

/// A request's field block.
pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "box")];
    block(&[&pseudo, fields].concat())
}

/// A field block (RFC 7541): nothing in it is indexed or compressed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [vec![0], string(name), string(value)].concat()).collect()
}

/// The status of an answer, from its field block; of a server that was told to have no table ([`super::HEADER_TABLE_SIZE`] 0), or that has not answered so before.
pub fn status(block: &[u8]) -> Option<u16> {
    /// Entries 8 to 14 of the static table (RFC 7541, appendix A).
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        // A dynamic table size update: the table has no room from now on.
        [0x20, rest @ ..] => status(rest),
        [indexed @ 0x88..=0x8e, ..] => KNOWN.get(usize::from(indexed - 0x88)).copied(),
        // Literals with an indexed name; the value is Huffman-coded.
        [0x48..=0x4e | 0x08..=0x0e | 0x18..=0x1e, 0x80..=0xff, value @ ..] => digits(value),
        _ => None,
    }
}

/// Three digits (RFC 7541, appendix B): the first three have codes of 5 bits, the others of 6.
fn digits(coded: &[u8]) -> Option<u16> {
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    (0..3).try_fold(0, |number, _| {
        let five = (0..5).try_fold(0, |code, _| Some(code << 1 | bits.next()?))?;
        let digit = if five < 3 { five } else { (five << 1 | bits.next()?).checked_sub(22)? };
        Some(number * 10 + digit)
    })
}

/// A string literal without Huffman coding.
fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(rest as u8);
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        bytes.push(rest as u8);
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
