//! What people see who come with a browser.

use super::{ConfigError, settings::settings};
use crate::store::name::ModuleName;

/// More would be no list for people.
const MOST_LISTED: usize = 1000;

settings! {
    /// What people see who come with a browser.
    pub struct PageSettings {
        /// Show the live page at / of the admin port [default: true]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
        live_page: bool = ["LIVE_PAGE"],
        /// Name by which browsers may reach the live page, beside addresses and localhost; may be given several times [default: none]
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        admin_name: Vec<String> = ["ADMIN_NAMES"],
        /// Function that / of the function port lists for browsers; may be given several times [default: none]
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        listed_function: Vec<String> = ["LISTED_FUNCTIONS"],
    }
}

/// What people see who come with a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageConfig {
    pub live_page: bool,
    /// In lower case.
    pub admin_names: Vec<String>,
    pub listed_functions: Vec<ModuleName>,
}

impl PageSettings {
    pub(super) fn resolve(self) -> Result<PageConfig, ConfigError> {
        let admin_names = self.admin_name.unwrap_or_default().into_iter().map(|name| {
            let name = name.trim().to_ascii_lowercase();
            let is_name = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'.' | b'-' | b'_');
            if name.is_empty() || !name.bytes().all(is_name) {
                let expected = "a host's name, without a port: box.example.com".into();
                return Err(ConfigError::Value { name: "--admin-name", value: name, expected });
            }
            Ok(name)
        });
        let listed = self.listed_function.unwrap_or_default();
        super::within("--listed-function", listed.len(), 0, MOST_LISTED)?;
        let listed_functions = listed.into_iter().map(|name| {
            let expected = "a function's name: letters, digits, '.', '_' and '-'".into();
            name.trim().parse().map_err(|_| ConfigError::Value { name: "--listed-function", value: name, expected })
        });
        Ok(PageConfig {
            live_page: self.live_page.unwrap_or(true),
            admin_names: admin_names.collect::<Result<_, _>>()?,
            listed_functions: listed_functions.collect::<Result<_, _>>()?,
        })
    }
}
