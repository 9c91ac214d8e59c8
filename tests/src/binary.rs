//! Modules as bytes, where text would hide what is tested.

/// The binary form of a module or component that is written as text.
///
/// # Panics
/// If it is none.
pub fn encoded(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the test's module is one")
}

/// A custom section.
pub fn custom_section(name: &str, content: &[u8]) -> Vec<u8> {
    let mut payload = number(name.len());
    payload.extend_from_slice(name.as_bytes());
    payload.extend_from_slice(content);
    section(0, &payload)
}

/// A command of about `size` bytes of code that takes long to compile and does nothing.
pub fn large(size: usize) -> Vec<u8> {
    const FUNCTION_BYTES: usize = 16 << 10;
    let count = size.div_ceil(FUNCTION_BYTES).max(1);
    let functions: Vec<Vec<u8>> = (0..count).map(|index| arithmetic(index as u8, FUNCTION_BYTES)).collect();
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    // Types: () -> (), and i32 -> i32.
    module.extend(section(1, b"\x02\x60\0\0\x60\x01\x7f\x01\x7f"));
    let mut types = number(count + 1);
    types.push(0);
    types.resize(types.len() + count, 1);
    module.extend(section(3, &types));
    module.extend(section(5, b"\x01\0\x01"));
    module.extend(section(7, b"\x02\x06_start\0\0\x06memory\x02\0"));
    let mut code = number(count + 1);
    code.extend(b"\x02\0\x0b");
    for function in functions {
        code.extend(number(function.len()));
        code.extend(function);
    }
    module.extend(section(10, &code));
    module
}

/// The body of a function i32 -> i32 of about `size` bytes: `x = (x ^ k) * x + k`, again and again.
fn arithmetic(seed: u8, size: usize) -> Vec<u8> {
    let mut body = vec![0];
    let mut constant = seed & 63;
    while body.len() < size {
        // local.get 0, i32.const k, i32.xor, local.get 0, i32.mul, i32.const k, i32.add, local.set 0
        body.extend([0x20, 0, 0x41, constant, 0x73, 0x20, 0, 0x6c, 0x41, constant, 0x6a, 0x21, 0]);
        constant = constant.wrapping_mul(5).wrapping_add(seed) & 63;
    }
    body.extend([0x20, 0, 0x0b]);
    body
}

fn section(id: u8, payload: &[u8]) -> Vec<u8> {
    let mut section = vec![id];
    section.extend(number(payload.len()));
    section.extend_from_slice(payload);
    section
}

/// LEB128.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A valid command of 190 KB that takes gigabytes and minutes to compile: 20,000 locals, live through 300 nested loops each of which changes all of
/// them.
pub fn exhausting(imports: &[(&str, &str)]) -> Vec<u8> {
    command(imports, &exhausting_body())
}

/// The same with a table of so many elements.
pub fn exhausting_with_table(elements: usize) -> Vec<u8> {
    let table = [b"\x01\x70\0".to_vec(), number(elements)].concat();
    module(NOTHING, &[], &section(4, &table), &exhausting_body())
}

/// The same, but what it exports as `_start` has a parameter.
pub fn exhausting_library() -> Vec<u8> {
    module(b"\x60\x01\x7f\0", &[], &[], &exhausting_body())
}

/// A component as text, with such a module in it, of which there is no instance.
///
/// # Panics
/// If it is none.
pub fn exhausting_component(text: &str) -> Vec<u8> {
    [encoded(text), section(1, &exhausting(&[]))].concat()
}

fn exhausting_body() -> Vec<u8> {
    const LOCALS: usize = 20_000;
    const LOOPS: usize = 300;
    let mut body = vec![1];
    body.extend(number(LOCALS));
    body.push(0x7f);
    for _ in 0..LOOPS {
        // loop
        body.extend([0x03, 0x40]);
    }
    for local in 0..LOCALS {
        // local.get, i32.const 1, i32.add, local.set
        body.push(0x20);
        body.extend(number(local));
        body.extend([0x41, 1, 0x6a, 0x21]);
        body.extend(number(local));
    }
    for level in 0..LOOPS {
        // local.get, br_if 0, end
        body.push(0x20);
        body.extend(number(level));
        body.extend([0x0d, 0, 0x0b]);
    }
    body.push(0x0b);
    body
}

/// The type of a function without parameters and results.
const NOTHING: &[u8] = b"\x60\0\0";

/// A command that imports these functions; `body` is its `_start`, with its locals.
fn command(imports: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    module(NOTHING, imports, &[], body)
}

/// A module whose one function, of the type `start`, is `_start`, and is behind the section `tables`.
fn module(start: &[u8], imports: &[(&str, &str)], tables: &[u8], body: &[u8]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend(section(1, &[&[1], start].concat()));
    module.extend(importing(imports));
    module.extend(section(3, b"\x01\0"));
    module.extend_from_slice(tables);
    let mut export = b"\x01\x06_start\0".to_vec();
    export.extend(number(imports.len()));
    module.extend(section(7, &export));
    let mut code = number(1);
    code.extend(number(body.len()));
    code.extend_from_slice(body);
    module.extend(section(10, &code));
    module
}

/// An import section of functions without parameters, of type 0.
fn importing(imports: &[(&str, &str)]) -> Vec<u8> {
    let mut payload = number(imports.len());
    for text in imports {
        for name in [text.0, text.1] {
            payload.extend(number(name.len()));
            payload.extend_from_slice(name.as_bytes());
        }
        payload.extend([0, 0]);
    }
    section(2, &payload)
}

/// A command that does nothing and imports these.
pub fn command_importing(imports: &[(&str, &str)]) -> Vec<u8> {
    command(imports, b"\0\x0b")
}

/// The same module with a function more, of so much code that it is large to the box: nobody calls it, and compiling it takes no time.
///
/// # Panics
/// If it is no module with types, functions and code.
pub fn with_much_code(module: &[u8]) -> Vec<u8> {
    const MUCH: usize = 256 << 10;
    let (header, mut rest) = module.split_at(8);
    let mut larger = header.to_vec();
    let mut types = 0;
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = read_number(after);
        let (payload, after) = after.split_at(length);
        rest = after;
        let (count, entries) = read_number(payload);
        let added = match id {
            // () -> ()
            1 => {
                types = count;
                b"\x60\0\0".to_vec()
            }
            3 => number(types),
            10 => {
                let mut body = vec![0];
                body.resize(MUCH, 1);
                body.push(0x0b);
                [number(body.len()), body].concat()
            }
            _ => {
                larger.extend(section(id, payload));
                continue;
            }
        };
        larger.extend(section(id, &[number(count + 1), entries.to_vec(), added].concat()));
    }
    assert!(types > 0 && larger.len() > module.len() + MUCH, "it has no types, or no code");
    larger
}

/// The number that is first, and what follows.
fn read_number(mut bytes: &[u8]) -> (usize, &[u8]) {
    let (mut value, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        bytes = rest;
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (value, bytes)
}
