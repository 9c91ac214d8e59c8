//! The page on the command line: what the program's own help says.

use std::{path::Path, process::Command};

use anyhow::{Context, ensure};

/// The page, with a section for each command.
///
/// # Errors
/// If the program does not run, or has no commands.
pub fn page(wasmbox: &Path) -> anyhow::Result<String> {
    let help = |command: &[&str]| -> anyhow::Result<String> {
        // Without an environment, whose values the help would show.
        let run = Command::new(wasmbox).args(command).arg("--help").env_clear().output();
        let run = run.with_context(|| wasmbox.display().to_string())?;
        ensure!(run.status.success(), "{} --help: {}", command.join(" "), String::from_utf8_lossy(&run.stderr));
        Ok(String::from_utf8(run.stdout)?)
    };
    let overview = help(&[])?;
    let commands: Vec<&str> = commands(&overview).collect();
    ensure!(!commands.is_empty(), "{} --help names no commands", wasmbox.display());
    let mut page = format!(
        "# Command line\n\nThis is what `wasmbox --help` and `--help` of each command print.\n\n```text\n{overview}```\n"
    );
    for command in commands {
        page.push_str(&format!("\n## wasmbox {command}\n\n```text\n{}```\n", help(&[command])?));
    }
    Ok(page)
}

/// The names in the list of commands, but for `help`.
fn commands(overview: &str) -> impl Iterator<Item = &str> {
    let list = overview.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help")
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_read_from_the_overview() {
        let overview = "A program\n\nCommands:\n  serve   Serve\n  doctor  Check,\n          and say\n  help    Print\n\nOptions:\n  -h  Help\n";
        assert_eq!(super::commands(overview).collect::<Vec<_>>(), ["serve", "doctor"]);
    }
}
