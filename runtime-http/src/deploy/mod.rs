//! Functions of a box that runs, from a terminal: `wasmbox push`, `list`, `rm`, `rollback` and `logs`; and on their ways to registries and back, `push` and `pull`.
//!
//! What is done with a box is what `curl` could do with the admin port; what may be done, and what is right, is the box's business
//! ([`crate::upload`]). How registries are talked to is in [`crate::registry`].
//!
//! - [`remote`]: the box, and how it is asked; [`token`]: as whom; [`cluster`]: one in a Kubernetes cluster; [`push`]: a file on its way; [`logs`]: lines as they come; [`table`]: lists
//! - [`publish`]: functions on their way to a registry; [`pull`]: and back; [`session`]: what both need; [`progress`]: how it is shown

pub mod cluster;
pub mod logs;
pub mod progress;
pub mod publish;
pub mod pull;
pub mod push;
pub mod remote;
pub mod session;
pub mod table;
pub mod token;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use http::{Method, Request, StatusCode};

use self::remote::{Remote, RemoteArgs, RemoteError};
use crate::upload::list::{Described, Listed, Stored};

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// List the versions of this function instead
    pub name: Option<String>,
    /// Print the box's document instead
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Debug, clap::Args)]
pub struct RmArgs {
    /// The function
    pub name: String,
    /// Forget its versions, too: then it cannot be restored, and takes no space
    #[arg(long)]
    pub purge: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

#[derive(Debug, clap::Args)]
pub struct RollbackArgs {
    /// The function
    pub name: String,
    /// Number of the version, as `wasmbox list NAME` shows them [default: the one before]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<u64>,
    #[command(flatten)]
    pub remote: RemoteArgs,
}

fn print(text: &str) -> Result<ExitCode, RemoteError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(RemoteError::Output(error)),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

/// # Errors
/// [`RemoteError`]
pub fn list(arguments: &ListArgs) -> Result<ExitCode, RemoteError> {
    let remote = Remote::new(&arguments.remote)?;
    let path = match &arguments.name {
        Some(name) => format!("/functions/{name}/versions"),
        None => "/functions?stored".to_owned(),
    };
    let answer = remote.ask(Request::get(path))?;
    if arguments.json {
        return print(&String::from_utf8_lossy(&answer.body));
    }
    let text = match &arguments.name {
        Some(name) => match &answer.document::<Vec<Listed>>()?[..] {
            [] => format!("{name} has no versions yet: it was put into the functions directory by other means\n"),
            versions => table::versions(versions),
        },
        None => table::functions(&answer.document::<Vec<Stored>>()?),
    };
    print(&text)
}

/// # Errors
/// [`RemoteError`]
pub fn rm(arguments: &RmArgs) -> Result<ExitCode, RemoteError> {
    let remote = Remote::new(&arguments.remote)?;
    let name = &arguments.name;
    match remote.ask(Request::delete(format!("/functions/{name}"))) {
        // What was removed before may have versions still.
        Err(RemoteError::Refused { status: StatusCode::NOT_FOUND, .. }) if arguments.purge => {}
        answer => drop(answer?),
    }
    if arguments.purge {
        remote.ask(Request::delete(format!("/functions/{name}/versions")))?;
        return print(&format!("{name}: removed, with its versions\n"));
    }
    print(&format!("{name}: removed; `wasmbox rollback {name}` restores it\n"))
}

/// # Errors
/// [`RemoteError`]
pub fn roll_back(arguments: &RollbackArgs) -> Result<ExitCode, RemoteError> {
    let remote = Remote::new(&arguments.remote)?;
    let query = arguments.to.map_or_else(String::new, |version| format!("?version={version}"));
    let path = format!("/functions/{}/rollback{query}", arguments.name);
    let serving: Described = remote.ask(Request::builder().method(Method::POST).uri(path))?.document()?;
    let version = serving.version.map_or_else(|| "?".to_owned(), |version| version.to_string());
    print(&format!("{}: serves {} now, as version {version}\n", serving.name, table::etag(serving.etag.as_deref())))
}
