use proptest::prelude::*;

use super::*;

fn stderr(keep: KeepLast) -> Stderr {
    Stderr::new("function".into(), InvocationId::next(), keep)
}

#[test]
fn whole_lines_are_kept() {
    let stderr = stderr(KeepLast::Lines);
    assert_eq!(stderr.last_lines(), "");
    // After each, since what is kept is cut now and then.
    for number in 0..600 {
        stderr.lines().write(format!("line {number}\n").as_bytes());
        let last = stderr.last_lines();
        assert!(last.starts_with("line ") && last.ends_with(&format!("line {number}")), "{last}");
        assert!(last.len() <= LAST_BYTES && (number < 200 || last.len() > LAST_BYTES - 20), "{}", last.len());
    }
}

#[test]
fn what_is_not_text_is_logged_no_longer_than_text() {
    for byte in [0xff, b'x', b'\r'] {
        let bytes = [byte; LONGEST_LINE];
        assert!(logged(&String::from_utf8_lossy(&bytes)).len() <= LONGEST_LINE, "{byte}");
    }
    assert_eq!(logged("text\r\r"), "text");
}

#[test]
fn nothing_is_kept_that_nobody_may_read() {
    let stderr = stderr(KeepLast::Nothing);
    stderr.lines().write(b"secret\n");
    assert_eq!(stderr.last_lines(), "");
    assert_eq!(stderr.lines().last.capacity(), 0);
}

#[test]
fn lines_for_the_log_are_kept_and_counted_with_it() {
    let stderr = stderr(KeepLast::Lines);
    stderr.lines().entry(Severity::Error, "a", "b\nc");
    assert_eq!(stderr.last_lines(), "a: b\nc");
    let before = stderr.lines().left;
    assert_eq!(MOST_BYTES - before, LINE_BYTES + 1 + 4);
    // In pieces, of whole characters.
    stderr.lines().entry(Severity::Error, "", &"é".repeat(LONGEST_LINE));
    assert_eq!(before - stderr.lines().left, 2 * LINE_BYTES + 2 * LONGEST_LINE);
    // An empty one costs something, too, and a flood ends.
    for _ in 0..MOST_BYTES / LINE_BYTES {
        stderr.lines().entry(Severity::Error, "", "");
    }
    stderr.lines().entry(Severity::Error, "", "lost");
    let lines = stderr.lines();
    assert_eq!((lines.left, lines.dropped), (0, 4));
    assert_eq!((beginning("aé", 2), beginning("aé", 9)), ("a", "aé"));
}

proptest! {
    #[test]
    fn little_is_kept_of_whatever_is_written(writes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20)) {
        let stderr = stderr(KeepLast::Lines);
        for bytes in &writes {
            stderr.lines().write(bytes);
            prop_assert!(stderr.lines().last.len() <= 2 * LAST_BYTES);
        }
        // What is no UTF-8 becomes three bytes long.
        prop_assert!(stderr.last_lines().len() <= 3 * LAST_BYTES);
        let all = writes.concat();
        if all.len() <= LAST_BYTES {
            prop_assert_eq!(stderr.last_lines(), String::from_utf8_lossy(all.trim_ascii()));
        }
    }
}
