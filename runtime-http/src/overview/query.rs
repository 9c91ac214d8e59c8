//! Which functions are shown, in which order: the query of `/overview.json`.

use std::fmt::{self, Display};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{excerpt::excerpt, failures, store::name::ModuleName};

/// The most functions in one document.
pub const MOST_ROWS: usize = 200;
const ROWS: usize = 50;
/// Whoever looks for one that is further behind filters.
const MOST_OFFSET: usize = 1_000_000;
const FAILURES: usize = 20;

/// By what functions are sorted: the most first, but names from A to Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Sort {
    /// CPU in use
    #[default]
    Cpu,
    /// Most memory of one invocation
    Memory,
    /// Calls in a second
    Calls,
    /// Errors in a second
    Errors,
    /// Running invocations
    Running,
    /// Time within which 99 of 100 calls end
    Latency,
    Name,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub sort: Sort,
    pub limit: usize,
    pub offset: usize,
    /// A part of the name, in lower case; empty: all.
    pub filter: String,
    pub failures: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the query has {parameter:?}; expected {expected}")]
pub struct BadQuery {
    parameter: String,
    expected: String,
}

impl Default for Query {
    fn default() -> Self {
        Query { sort: Sort::default(), limit: ROWS, offset: 0, filter: String::new(), failures: FAILURES }
    }
}

impl Sort {
    const ALL: [Sort; 7] =
        [Sort::Cpu, Sort::Memory, Sort::Calls, Sort::Errors, Sort::Running, Sort::Latency, Sort::Name];

    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Cpu => "cpu",
            Sort::Memory => "memory",
            Sort::Calls => "calls",
            Sort::Errors => "errors",
            Sort::Running => "running",
            Sort::Latency => "latency",
            Sort::Name => "name",
        }
    }

    /// The one after it, and at the end the first.
    #[must_use]
    pub fn next(self) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or_default();
        Sort::ALL[(at + 1) % Sort::ALL.len()]
    }
}

impl Query {
    /// Reads `sort=cpu&limit=50&offset=0&filter=text&failures=20`, all of which may be missing.
    ///
    /// # Errors
    /// [`BadQuery`], with what is not understood.
    pub fn parse(text: &str) -> Result<Query, BadQuery> {
        let mut query = Query::default();
        for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
            let bad = |expected: &str| BadQuery { parameter: excerpt(parameter), expected: expected.to_owned() };
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let number = |least: usize, most: usize| {
                let digits = Some(value).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()));
                let number = digits.and_then(|value| value.parse().ok());
                let within = number.filter(|number| (least..=most).contains(number));
                within.ok_or_else(|| bad(&format!("{name}={least} to {name}={most}")))
            };
            match name {
                "sort" => {
                    let sort = Sort::ALL.into_iter().find(|sort| sort.as_str() == value);
                    let all = Sort::ALL.map(Sort::as_str).join(", ");
                    query.sort = sort.ok_or_else(|| bad(&format!("sort= with one of {all}")))?;
                }
                "limit" => query.limit = number(1, MOST_ROWS)?,
                "offset" => query.offset = number(0, MOST_OFFSET)?,
                "failures" => query.failures = number(0, failures::MOST)?,
                "filter" => {
                    let spaced = value.replace('+', " ");
                    let text = percent_decode_str(&spaced).decode_utf8().map_err(|_| bad("UTF-8"))?;
                    if text.len() > ModuleName::LONGEST {
                        return Err(bad(&format!("filter= with at most {} bytes", ModuleName::LONGEST)));
                    }
                    query.filter = text.to_ascii_lowercase();
                }
                _ => return Err(bad("sort, limit, offset, filter and failures")),
            }
        }
        Ok(query)
    }

    /// Whether a function of that name is wanted.
    pub fn takes(&self, name: &str) -> bool {
        self.filter.is_empty() || name.to_ascii_lowercase().contains(&self.filter)
    }
}

/// As it is parsed.
impl Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Query { sort, limit, offset, filter, failures } = self;
        let filter = utf8_percent_encode(filter, NON_ALPHANUMERIC);
        write!(f, "sort={}&limit={limit}&offset={offset}&failures={failures}&filter={filter}", sort.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_they_are_written() {
        assert_eq!(Query::parse(""), Ok(Query::default()));
        let query = Query { sort: Sort::Name, limit: 200, offset: 7, filter: "a+b &é".into(), failures: 0 };
        assert_eq!(Query::parse(&query.to_string()), Ok(query));
        assert_eq!(Query::parse("filter=A+%42").unwrap().filter, "a b");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let long = format!("filter={}", "x".repeat(129));
        for bad in [
            "sort=size",
            "sort",
            "limit=0",
            "limit=201",
            "limit=+1",
            "limit=",
            "offset=-1",
            "offset=1000001",
            "failures=129",
            "filter=%ff",
            &long,
            "x=1",
            "LIMIT=1",
        ] {
            let error = Query::parse(bad).expect_err(bad).to_string();
            assert!(error.contains("expected ") && error.len() < 400, "{error}");
        }
    }

    #[test]
    fn sorts_go_round() {
        let round: Vec<Sort> = std::iter::successors(Some(Sort::Cpu), |sort| Some(sort.next())).take(8).collect();
        assert_eq!((round[7], round[6]), (Sort::Cpu, Sort::Name));
    }
}
