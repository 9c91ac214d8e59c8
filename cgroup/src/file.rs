//! The kernel's files: a number, or lines of a name and a value.
//!
//! A file with one number is read by `libcgroups`. Its reader of files of fields is private, and refuses the whole file for one line that
//! it does not understand; kernels add such lines.

use std::{collections::BTreeMap, fs, fs::File, os::unix::fs::FileExt, path::Path};

use libcgroups::stats::parse_single_value;

/// What an open file is read into at most, bytes: `memory.stat` has some two thousand.
const MOST: usize = 8192;

/// `None` if the file is not there, or cannot be read.
pub fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The number in the file; `max` is none.
pub fn number(path: &Path) -> Option<u64> {
    // That is how `max` is told.
    parse_single_value(path).ok().filter(|number| *number != u64::MAX)
}

/// The value in a line `name value`.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The values of all lines `name value`.
pub fn fields(text: &str) -> BTreeMap<String, u64> {
    let field = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(field).collect()
}

/// A file that is read again and again: one `pread` for each reading, mostly, without looking up its path.
#[derive(Debug)]
pub struct OpenFile(File);

impl OpenFile {
    /// The file, if it is there and can be read.
    pub fn open(path: &Path) -> Option<OpenFile> {
        File::open(path).ok().map(OpenFile).filter(|file| file.text().is_some())
    }

    pub fn text(&self) -> Option<String> {
        let mut text = vec![0; MOST];
        let mut length = 0;
        loop {
            let read = self.0.read_at(&mut text[length..], length as u64).ok()?;
            length += read;
            if read == 0 || length == text.len() {
                text.truncate(length);
                return String::from_utf8(text).ok();
            }
        }
    }

    /// The number in it.
    pub fn number(&self) -> Option<u64> {
        self.text()?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        let stat = "inactive_file 7\ntotal_inactive_file 9\nodd\nlater 1 2\n";
        assert_eq!(field(stat, "inactive_file"), Some(7));
        assert_eq!(field(stat, "total_inactive_file"), Some(9));
        assert_eq!(field(stat, "inactive"), None);
        let all = [("inactive_file".to_owned(), 7), ("total_inactive_file".to_owned(), 9)];
        assert_eq!(fields(stat), BTreeMap::from(all));
    }

    #[test]
    fn numbers_and_what_is_none() {
        let path = std::env::temp_dir().join(format!("wasmbox-cgroup-file-{}", std::process::id()));
        for (text, wanted) in [("17\n", Some(17)), ("max\n", None), ("-1\n", None), ("", None)] {
            fs::write(&path, text).unwrap();
            assert_eq!(number(&path), wanted, "{text:?}");
        }
        fs::write(&path, "17\n").unwrap();
        let open = OpenFile::open(&path).unwrap();
        assert_eq!((open.number(), open.text().as_deref()), (Some(17), Some("17\n")));
        fs::write(&path, "18\n").unwrap();
        assert_eq!(open.number(), Some(18), "it is read anew");
        fs::remove_file(&path).unwrap();
        assert_eq!((number(&path), text(&path)), (None, None));
        assert!(OpenFile::open(&path).is_none());
    }
}
