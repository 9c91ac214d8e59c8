//! Paths of the function port.

use crate::store::name::{BadModuleName, ModuleName};

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/-/live`
    Live,
    /// `/-/ready`
    Ready,
    /// `/{module}`, or `/{module}/...` for wasi:http components.
    Module { name: ModuleName, below: bool },
    /// `/`
    Root,
}

impl Route {
    /// Reads a path as it is on the wire: nothing is decoded, since no name contains a character that needs encoding.
    ///
    /// # Errors
    /// [`BadModuleName`] if the first segment is none.
    pub fn parse(path: &str) -> Result<Route, BadModuleName> {
        match path {
            "/-/live" => return Ok(Route::Live),
            "/-/ready" => return Ok(Route::Ready),
            "/" | "" => return Ok(Route::Root),
            _ => {}
        }
        let path = path.strip_prefix('/').ok_or(BadModuleName)?;
        let (name, below) = path.split_once('/').map_or((path, false), |(name, _)| (name, true));
        Ok(Route::Module { name: name.parse()?, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let module = |name: &str, below| Ok(Route::Module { name: name.parse().unwrap(), below });
        assert_eq!(Route::parse("/-/live"), Ok(Route::Live));
        assert_eq!(Route::parse("/-/ready"), Ok(Route::Ready));
        assert_eq!(Route::parse("/"), Ok(Route::Root));
        assert_eq!(Route::parse("/hello"), module("hello", false));
        assert_eq!(Route::parse("/hello.wasm"), module("hello.wasm", false));
        assert_eq!(Route::parse("/hello/"), module("hello", true));
        assert_eq!(Route::parse("/hello/../x"), module("hello", true));
        for bad in ["*", "//", "//hello", "/..", "/../etc/passwd", "/%2e%2e", "/%68ello", "/.hidden", "/a b", "/a\\b"] {
            assert_eq!(Route::parse(bad), Err(BadModuleName), "{bad}");
        }
    }
}
