//! A command's arguments: each `arg` of the query, in order.

use percent_encoding::percent_decode_str;

/// Why an argument cannot be passed. WASI arguments are NUL-terminated UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArgument {
    #[error("argument {number} is not UTF-8 after percent-decoding")]
    NotUtf8 { number: usize },
    #[error("argument {number} contains a NUL byte, which no program's argument can")]
    Nul { number: usize },
}

/// The values of `arg` in a query of `application/x-www-form-urlencoded` form.
///
/// # Errors
/// [`BadArgument`], counting from 1.
pub fn arguments(query: &str) -> Result<Vec<String>, BadArgument> {
    let mut arguments = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode_str(name).ne(*b"arg") {
            continue;
        }
        let number = arguments.len() + 1;
        // In this form `+` is a space; decoded `%2B` is a plus.
        let spaced = value.replace('+', " ");
        let value = percent_decode_str(&spaced).decode_utf8().map_err(|_| BadArgument::NotUtf8 { number })?;
        arguments.push(checked(value.into_owned(), number)?);
    }
    Ok(arguments)
}

/// `value` as argument `number`.
///
/// # Errors
/// [`BadArgument::Nul`].
pub fn checked(value: String, number: usize) -> Result<String, BadArgument> {
    if value.contains('\0') { Err(BadArgument::Nul { number }) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_encoding_and_odd_characters() {
        assert_eq!(
            arguments("arg=a&x=1&arg=b+c&arg=%2B%26%3D%0A%22&arg&arg=").unwrap(),
            ["a", "b c", "+&=\n\"", "", ""]
        );
        assert_eq!(arguments("%61rg=x&ARG=y&args=z").unwrap(), ["x"]);
        assert_eq!(arguments("arg=%C3%A9%F0%9F%A6%80").unwrap(), ["é🦀"]);
        assert_eq!(arguments("").unwrap(), Vec::<String>::new());
        assert_eq!(arguments("arg=100%").unwrap(), ["100%"]);
    }

    #[test]
    fn what_cannot_be_an_argument() {
        assert_eq!(arguments("arg=a&arg=%FF"), Err(BadArgument::NotUtf8 { number: 2 }));
        assert_eq!(arguments("arg=a%00b"), Err(BadArgument::Nul { number: 1 }));
    }
}
