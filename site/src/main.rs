//! The documentation site. The documents stay where they are, so that they can be read in the repository, too; this program prepares them
//! for mdBook, and checks what mdBook made of them. `make site` runs all three steps.
//!
//! - [`source`]: copies the documents of `SUMMARY.md`, and the files that they link to, into one directory
//! - [`section`]: moves a section of a document to a page of its own, for the reference
//! - [`command_line`]: writes the page on the command line from the program's help
//! - [`markdown`]: headings and links of a document
//! - [`check`]: follows each link of the site, and looks for other hosts; [`html`]: tags and their attributes

mod check;
mod command_line;
mod html;
mod markdown;
mod section;
mod source;

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

const USAGE: &str = "usage: wasmbox-site prepare REPOSITORY WASMBOX DIRECTORY, or wasmbox-site check SITE";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["prepare", repository, wasmbox, directory] => {
            source::prepare(Path::new(repository), Path::new(wasmbox), Path::new(directory))?;
            Ok(ExitCode::SUCCESS)
        }
        ["check", site] => {
            let report = check::site(Path::new(site))?;
            for fault in &report.faults {
                eprintln!("{fault}");
            }
            let (pages, links, faults) = (report.pages, report.links, report.faults.len());
            writeln!(io::stdout(), "{site}: {pages} pages, {links} links, {faults} faults")?;
            Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => anyhow::bail!(USAGE),
    }
}
