//! Who may change functions: whoever shows one of the operator's tokens.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use http::{HeaderMap, header};

use super::UploadError;

/// A shorter one could be guessed.
const SHORTEST: usize = 16;
/// Also of the whole file.
const LONGEST: u64 = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("--upload-token-file (UPLOAD_TOKEN_FILE) {}: {source}; let it be a file that this user may read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "--upload-token-file (UPLOAD_TOKEN_FILE) {}: {reason}; let it have a token of at least {SHORTEST} visible characters in each line: openssl rand -hex 32",
        path.display()
    )]
    Unusable { path: PathBuf, reason: &'static str },
}

/// The tokens, as digests: those of two texts are compared in a time that tells nothing of either.
#[derive(Debug, Clone)]
pub struct Tokens(Vec<blake3::Hash>);

impl Tokens {
    /// Reads the file, which the box can no longer reach later.
    ///
    /// # Errors
    /// [`TokenError`], which does not tell what is in the file.
    pub fn load(path: &Path) -> Result<Tokens, TokenError> {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_string(&mut text));
        read.map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
        Tokens::parse(&text).map_err(|reason| TokenError::Unusable { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Tokens, &'static str> {
        if text.len() as u64 > LONGEST {
            return Err("it is too large");
        }
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err("there is no token in it");
        }
        if lines.iter().any(|line| line.len() < SHORTEST) {
            return Err("a token is too short");
        }
        if !lines.iter().all(|line| line.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("a token has other characters than visible ones of ASCII");
        }
        Ok(Tokens(lines.into_iter().map(|line| blake3::hash(line.as_bytes())).collect()))
    }

    /// Checks that a request with these headers shows one of them (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// [`UploadError::Unauthorized`], [`UploadError::WrongToken`]
    pub fn check(&self, headers: &HeaderMap) -> Result<(), UploadError> {
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (shown.next(), shown.next()) else { return Err(UploadError::Unauthorized) };
        let token = match value.as_bytes().split_at_checked("Bearer ".len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token,
            Some(_) | None => return Err(UploadError::Unauthorized),
        };
        let shown = blake3::hash(token.trim_ascii());
        // All of them, whichever it is.
        let allowed = self.0.iter().fold(false, |allowed, token| (*token == shown) | allowed);
        if allowed { Ok(()) } else { Err(UploadError::WrongToken) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0123456789abcdef";
    const SECOND: &str = "fedcba9876543210fedcba9876543210";

    fn allows(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        Tokens::parse(&format!("\n {FIRST}\r\n{SECOND}\n")).unwrap().check(&headers).is_ok()
    }

    #[test]
    fn one_of_the_tokens_is_shown_once() {
        for token in [FIRST, SECOND] {
            assert!(allows(&[&format!("Bearer {token}")]) && allows(&[&format!("bearer {token}")]));
        }
        let right = format!("Bearer {FIRST}");
        let wrong = ["", "Bearer", "Bearer ", "Basic 0123456789abcdef", FIRST, "Bearer 0123456789abcde", "Bearer x"];
        for wrong in wrong {
            assert!(!allows(&[wrong]), "{wrong:?}");
            assert!(!allows(&[&right, wrong]), "two headers");
        }
        let tokens = Tokens::parse(FIRST).unwrap();
        let said = |value: &str| tokens.check(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]));
        assert!(matches!(said("Basic x"), Err(UploadError::Unauthorized)));
        assert!(matches!(said("Bearer x"), Err(UploadError::WrongToken)));
        assert!(!allows(&[]) && !allows(&[&format!("{right}x")]));
    }

    #[test]
    fn files_without_a_good_token_are_refused() {
        let with_space = format!("{FIRST} {SECOND}");
        let large = "x".repeat(LONGEST as usize + 1);
        for text in ["", "\n \n", "short", &format!("{FIRST}\nshort"), &with_space, "ééééééééééééééééé", &large]
        {
            assert!(Tokens::parse(text).is_err(), "{text:.20}");
        }
    }
}
