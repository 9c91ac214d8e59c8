//! Arguments of those who look at a running box.

use crate::{
    client,
    config::{AdminSettings, Settings},
    overview::query::Sort,
};

#[derive(Debug, clap::Args)]
pub struct BoxArgs {
    /// The box's admin port as HOST:PORT or http://HOST:PORT, instead of --admin-host and --admin-port, which are those of `serve`
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["admin_host", "admin_port"])]
    pub address: Option<String>,
    #[command(flatten)]
    pub admin: AdminSettings,
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub place: BoxArgs,
    /// Print the document of /status instead
    #[arg(long)]
    pub json: bool,
    /// Look again each second; on a terminal with functions and what failed last, with --json a line each time
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, clap::Args)]
pub struct TopArgs {
    #[command(flatten)]
    pub place: BoxArgs,
    /// What the first ones have the most of
    #[arg(long, value_enum, default_value_t)]
    pub sort: Sort,
    /// How many are shown
    #[arg(short, long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub number: u8,
    /// Only those with this in their names
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Print them once, as it does where it is not on a terminal
    #[arg(long)]
    pub once: bool,
    /// Print this part of the document of /overview.json once
    #[arg(long)]
    pub json: bool,
}

impl BoxArgs {
    /// Whom to ask: the address that is given, else where `serve` would listen with `settings`.
    pub fn address(&self, settings: &Settings) -> String {
        match &self.address {
            Some(address) => client::host_and_port(address).to_owned(),
            None => client::reachable(settings.admin.host(), settings.admin.port()),
        }
    }
}
