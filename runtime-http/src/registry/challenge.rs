//! How a registry asks who it is that asks: `WWW-Authenticate` (RFC 9110, 11.6.1; the distribution project's "Token Authentication").

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token that another server gives.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The first that is understood, of the values of all its headers. Tokens are preferred.
    pub fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
        let mut basic = None;
        for header in headers {
            let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let mut parameters = Parameters(rest);
                let (mut realm, mut service, mut scope) = (None, None, None);
                while let Some((name, value)) = parameters.next() {
                    match name.to_ascii_lowercase().as_str() {
                        "realm" => realm = Some(value),
                        "service" => service = Some(value),
                        "scope" => scope = Some(value),
                        _ => {}
                    }
                }
                if let Some(realm) = realm {
                    return Some(Challenge::Bearer { realm, service, scope });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Challenge::Basic);
            }
        }
        basic
    }
}

/// `name=token` and `name="quoted \" text"`, with commas between them.
struct Parameters<'a>(&'a str);

impl Parameters<'_> {
    fn next(&mut self) -> Option<(String, String)> {
        let rest = self.0.trim_start_matches([' ', '\t', ',']);
        let (name, rest) = rest.split_once('=')?;
        let name = name.trim().to_owned();
        let Some(quoted) = rest.trim_start().strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            self.0 = &rest[end..];
            return Some((name, rest[..end].trim().to_owned()));
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((place, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &quoted[place + 1..];
                    return Some((name, value));
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                other => value.push(other),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
        Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
    }

    #[test]
    fn challenges_are_read() {
        let of = |header: &str| Challenge::of([header].into_iter());
        let whole =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let expected = bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull,push"));
        assert_eq!(of(whole), expected);
        assert_eq!(Challenge::of(["Basic realm=\"x\"", whole].into_iter()), expected);
        assert_eq!(of("bearer scope=a , realm=\"q\\\"x\""), bearer("q\"x", None, Some("a")));
        assert_eq!(of("Basic realm=\"Registry Realm\""), Some(Challenge::Basic));
        assert_eq!(of("basic"), Some(Challenge::Basic));
        for nothing in ["", "Bearer", "Bearer realm", "Bearer realm=\"open", "Negotiate x", "Bearer service=\"a\""] {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }
}
