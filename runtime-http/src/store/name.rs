//! The name of a module: the only part of a request that ever becomes part of a path.

use std::{fmt, str::FromStr, sync::Arc};

/// One path segment of `[A-Za-z0-9._-]`, 1 to 128 bytes, not starting with a dot (so neither `.` nor `..` nor hidden files).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleName(Arc<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a module's name has 1 to 128 letters, digits, '.', '_' or '-' and does not start with '.'")]
pub struct BadModuleName;

impl ModuleName {
    pub const LONGEST: usize = 128;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is a module's name.
    pub fn is_valid(text: &str) -> bool {
        (1..=Self::LONGEST).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }
}

impl FromStr for ModuleName {
    type Err = BadModuleName;

    fn from_str(text: &str) -> Result<Self, BadModuleName> {
        if Self::is_valid(text) { Ok(ModuleName(text.into())) } else { Err(BadModuleName) }
    }
}

impl std::borrow::Borrow<str> for ModuleName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let longest = "a".repeat(128);
        for good in ["a", "hello.wasm", "A-b_c.9", "a..b", &longest] {
            assert_eq!(good.parse::<ModuleName>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(129);
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "a%2e", "é", "a\0", "a\n", &too_long] {
            assert_eq!(bad.parse::<ModuleName>(), Err(BadModuleName), "{bad:?}");
        }
    }
}
