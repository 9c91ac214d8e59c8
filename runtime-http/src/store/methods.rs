//! The methods that a function is called with.

use http::{HeaderValue, Method};
use serde::{Deserialize, Deserializer, de::Error};

/// RFC 9110, section 9.3, and RFC 5789.
const STANDARD: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// What requests with a method are to a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// They run it.
    Run,
    /// They ask which ones do: `OPTIONS`, unless that runs it, too.
    Ask,
    Refuse,
}

/// The methods that run a function, as `methods` of its settings lists them; `GET` stands for `HEAD`, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Methods {
    run: Vec<Method>,
    /// The header `Allow`.
    allow: HeaderValue,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMethods {
    #[error("`methods` is empty: the function could not be called")]
    Empty,
    #[error("{0:?} is no method")]
    NoMethod(String),
    #[error("methods are in capital letters: {0}")]
    Lowercase(Method),
    #[error("{0} is about a connection, not for a function")]
    OfConnections(Method),
}

impl Methods {
    /// # Errors
    /// If there are none, one is no token (RFC 9110, section 9.1), or one is `CONNECT` or `TRACE`.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Methods, BadMethods> {
        let mut run = Vec::new();
        let mut add = |method: Method| {
            if !run.contains(&method) {
                run.push(method);
            }
        };
        for name in names {
            let method = Method::from_bytes(name.as_bytes()).map_err(|_| BadMethods::NoMethod(name.to_owned()))?;
            // Methods are case-sensitive; nobody sends one that differs from a standard one by that alone.
            let meant = STANDARD.into_iter().find(|standard| standard.as_str().eq_ignore_ascii_case(name));
            if let Some(meant) = meant.filter(|meant| *meant != method) {
                return Err(BadMethods::Lowercase(meant));
            }
            if matches!(method, Method::CONNECT | Method::TRACE) {
                return Err(BadMethods::OfConnections(method));
            }
            let is_get = method == Method::GET;
            add(method);
            if is_get {
                add(Method::HEAD);
            }
        }
        if run.is_empty() {
            return Err(BadMethods::Empty);
        }
        let mut listed: Vec<_> = run.iter().map(Method::as_str).collect();
        if !run.contains(&Method::OPTIONS) {
            listed.push(Method::OPTIONS.as_str());
        }
        let listed = listed.join(", ");
        // Tokens are letters, digits and some signs: what a header's value may have.
        let allow = HeaderValue::from_str(&listed).map_err(|_| BadMethods::NoMethod(listed))?;
        Ok(Methods { run, allow })
    }

    /// Those of a command whose settings say nothing.
    pub fn of_commands() -> Methods {
        Methods {
            run: vec![Method::GET, Method::HEAD, Method::POST],
            allow: HeaderValue::from_static("GET, HEAD, POST, OPTIONS"),
        }
    }

    pub fn usage(&self, method: &Method) -> Use {
        if self.run.contains(method) {
            Use::Run
        } else if method == Method::OPTIONS {
            Use::Ask
        } else {
            Use::Refuse
        }
    }

    /// All that are answered, as the header `Allow`.
    pub fn allow(&self) -> &HeaderValue {
        &self.allow
    }
}

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Methods::new(names.iter().map(String::as_str)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_runs() {
        assert_eq!(Methods::new(["GET", "POST"]).unwrap().allow(), Methods::of_commands().allow().to_str().unwrap());
        let methods = Methods::new(["PUT", "GET", "PURGE", "HEAD"]).unwrap();
        assert_eq!(methods.allow(), "PUT, GET, HEAD, PURGE, OPTIONS");
        for (method, usage) in
            [("PUT", Use::Run), ("HEAD", Use::Run), ("PURGE", Use::Run), ("OPTIONS", Use::Ask), ("POST", Use::Refuse)]
        {
            assert_eq!(methods.usage(&method.parse().unwrap()), usage, "{method}");
        }
        let own = Methods::new(["OPTIONS"]).unwrap();
        assert_eq!((own.usage(&Method::OPTIONS), own.usage(&Method::GET)), (Use::Run, Use::Refuse));
        assert_eq!(own.allow(), "OPTIONS");
    }

    #[test]
    fn what_is_no_method_for_a_function() {
        assert_eq!(Methods::new([]), Err(BadMethods::Empty));
        for name in ["", "GE T", "GÉT", "A\n"] {
            assert_eq!(Methods::new(["GET", name]), Err(BadMethods::NoMethod(name.into())));
        }
        for name in ["get", "Get", "gEt"] {
            assert_eq!(Methods::new(["POST", name]), Err(BadMethods::Lowercase(Method::GET)));
        }
        // One of somebody's own may be written as they like.
        assert!(Methods::new(["m-search"]).is_ok());
        assert_eq!(Methods::new(["TRACE"]), Err(BadMethods::OfConnections(Method::TRACE)));
    }
}
