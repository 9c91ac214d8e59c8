//! How a Service or a pod is named on a command line: `NAME`, or `NAMESPACE/NAME`.

use std::str::FromStr;

/// The name of something in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceName {
    /// That of the kubeconfig's context, if there is none.
    pub namespace: Option<String>,
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
#[error("it is NAME or NAMESPACE/NAME, of lower-case letters, digits, '-' and '.'")]
pub struct NameError;

/// RFC 1123, as Kubernetes has it: a name becomes part of a path.
fn is_name(text: &str) -> bool {
    let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| is_alphanumeric(*byte))
            && bytes.last().is_some_and(|byte| is_alphanumeric(*byte))
            && bytes.iter().all(|byte| is_alphanumeric(*byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

impl FromStr for ResourceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ResourceName, NameError> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if !is_name(name) || namespace.is_some_and(|namespace| !is_name(namespace)) {
            return Err(NameError);
        }
        Ok(ResourceName { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kubernetes_names() {
        let name = |text: &str| text.parse::<ResourceName>().ok().map(|name| (name.namespace, name.name));
        assert_eq!(name("wasmbox"), Some((None, "wasmbox".into())));
        assert_eq!(name("my-team/box.v2"), Some((Some("my-team".into()), "box.v2".into())));
        for text in ["", "/", "a/", "/a", "a/b/c", "A", "a..b", "-a", "a-", "a_b", "a?b", "../x", &"a".repeat(254)] {
            assert_eq!(name(text), None, "{text}");
        }
    }
}
