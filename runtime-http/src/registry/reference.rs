//! Names of artifacts: `oci://REGISTRY/NAME[:TAG][@sha256:...]`.

use std::{fmt, str::FromStr};

use super::{
    digest::Digest,
    origin::{host_and_port, is_local},
};

/// What begins a name of an artifact, where a file could be meant.
pub const SCHEME: &str = "oci://";
/// What is meant if neither a tag nor a digest is said.
const LATEST: &str = "latest";
/// Of the distribution specification, "Pulling manifests"; registries allow 255 bytes of registry and name.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// An artifact in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason}; expected oci://REGISTRY/NAME:TAG, or NAME@sha256:..., for instance oci://registry.example/team/hello:1.0"
)]
pub struct BadReference {
    reason: &'static str,
}

fn bad<T>(reason: &'static str) -> Result<T, BadReference> {
    Err(BadReference { reason })
}

/// Lower-case letters and digits, with '.', '_', '__' or dashes between them.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends_well = bytes.first().is_some_and(|&byte| is_word(byte)) && bytes.last().is_some_and(|&byte| is_word(byte));
    let separators = bytes.split(|&byte| is_word(byte)).filter(|separator| !separator.is_empty());
    ends_well
        && separators
            .into_iter()
            .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST_TAG
        && bytes.first().is_some_and(|&byte| is_word(byte))
        && bytes.iter().all(|&byte| is_word(byte) || byte == b'.' || byte == b'-')
}

/// Host, or host and port. Names of machines on the Internet have no '_'.
fn is_registry(text: &str) -> bool {
    !text.contains('_') && host_and_port(text).is_some()
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return bad("it does not begin with oci://") };
        let Some((registry, rest)) = rest.split_once('/') else { return bad("it has no name after the registry") };
        if !is_registry(registry) {
            return bad("its registry is no HOST or HOST:PORT");
        }
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => match digest.parse() {
                Ok(digest) => (rest, Some(digest)),
                Err(_) => return bad("what follows its '@' is no sha256: and 64 hexadecimal digits"),
            },
            None => (rest, None),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((_, tag)) if !is_tag(tag) => {
                return bad("its tag is not of 1 to 128 letters, digits, '_', '.' and '-'");
            }
            Some((name, tag)) => (name, Some(tag.to_owned())),
            None => (rest, None),
        };
        if name.len() + registry.len() > LONGEST_NAME || !name.split('/').all(is_component) {
            return bad(
                "its name is not of lower-case letters and digits, with '.', '_' or '-' between them and '/' between its parts",
            );
        }
        Ok(Reference { registry: registry.to_owned(), name: name.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}/{}", self.registry, self.name)?;
        match (&self.tag, &self.digest) {
            (_, Some(digest)) => write!(formatter, "@{digest}"),
            (Some(tag), None) => write!(formatter, ":{tag}"),
            (None, None) => write!(formatter, ":{LATEST}"),
        }
    }
}

impl Reference {
    /// Host, and port if it is said.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Where the registry's API answers: Docker's is not where its name says.
    pub fn authority(&self) -> &str {
        if self.is_dockers() { "registry-1.docker.io" } else { &self.registry }
    }

    pub fn is_dockers(&self) -> bool {
        matches!(self.registry.as_str(), "docker.io" | "index.docker.io")
    }

    /// The name of the repository, as it is in paths of the API.
    pub fn repository(&self) -> String {
        if self.is_dockers() && !self.name.contains('/') { format!("library/{}", self.name) } else { self.name.clone() }
    }

    /// Registry and name, without tag and digest: as tools for images have them.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.name)
    }

    /// The last part of the name, which is no path.
    pub fn function(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// By which a manifest is asked for.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| LATEST.to_owned()),
        }
    }

    /// Whether it is on this machine: then nobody is between.
    pub fn is_local(&self) -> bool {
        host_and_port(&self.registry).is_some_and(|(host, _)| is_local(&host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let digest = Digest::of(b"");
        let read = |text: &str| text.parse::<Reference>().unwrap();
        let plain = read("oci://registry.example/team/hello:1.0");
        assert_eq!((plain.registry(), plain.repository().as_str()), ("registry.example", "team/hello"));
        assert_eq!((plain.function(), plain.target().as_str()), ("hello", "1.0"));
        assert!(!plain.is_local());
        let both = read(&format!("oci://localhost:5000/a:b@{digest}"));
        assert_eq!((both.target(), both.tag(), both.is_local()), (digest.to_string(), Some("b"), true));
        assert_eq!(read("oci://[::1]:5000/a").target(), "latest");
        assert!(read("oci://[::1]/a").is_local() && read("oci://127.0.0.2:80/a").is_local());
        let docker = read("oci://docker.io/hello");
        assert_eq!((docker.authority(), docker.repository().as_str()), ("registry-1.docker.io", "library/hello"));
        assert_eq!(read("oci://a/b.c__d---e/f_g").function(), "f_g");
        for text in ["oci://localhost:5000/a:b", "oci://r/x:latest", &format!("oci://r/x@{digest}")] {
            assert_eq!(read(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = format!("oci://r/{}", "a".repeat(255));
        for text in [
            "",
            "hello",
            "oci://",
            "oci:///a",
            "oci://r",
            "oci://r/",
            "oci://r/A",
            "oci://r/a/../b",
            "oci://r/..",
            "oci://r/a//b",
            "oci://r/a:",
            "oci://r/a:.b",
            "oci://r/a:b/c",
            "oci://r/a@sha256:1",
            "oci://r/a b",
            "oci://u:p@r/a",
            "oci://r:0/a",
            "oci://r:99999/a",
            "oci://[::1/a",
            "oci://r/-a",
            "oci://r/a-",
            "oci://r/a..b",
            "oci://r/a?b",
            "oci://r/a%2fb",
            "oci://r\n/a",
            "https://r/a",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
