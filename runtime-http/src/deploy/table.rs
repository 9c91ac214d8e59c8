//! Lists, for people.

use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;

use crate::upload::list::{Listed, Stored};

/// Rows in columns as wide as their widest cell.
pub fn aligned<R: AsRef<[String]>>(rows: &[R]) -> String {
    let rows: Vec<&[String]> = rows.iter().map(AsRef::as_ref).collect();
    let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &&[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<String>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

pub fn etag(etag: Option<&str>) -> &str {
    etag.unwrap_or("unknown")
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// How long ago, in the largest unit.
fn age(unix: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = now.saturating_sub(unix);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub fn functions(functions: &[Stored]) -> String {
    let mut rows = vec![heading(&["NAME", "FILE", "SIZE", "SETTINGS", "VERSIONS", "AGE"])];
    rows.extend(functions.iter().map(|function| {
        vec![
            function.name.clone(),
            function.file.clone(),
            size(function.bytes),
            yes(function.settings),
            function.versions.to_string(),
            age(function.modified_unix),
        ]
    }));
    aligned(&rows)
}

pub fn versions(versions: &[Listed]) -> String {
    let mut rows = vec![heading(&["VERSION", "SERVES", "SIZE", "SETTINGS", "AGE", "ETAG"])];
    rows.extend(versions.iter().map(|version| {
        vec![
            version.version.to_string(),
            yes(version.serving),
            size(version.bytes),
            yes(version.settings),
            age(version.created_unix),
            version.etag.clone(),
        ]
    }));
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [heading(&["A", "LONG"]), heading(&["longer", "x"])];
        assert_eq!(aligned(&rows), "A       LONG\nlonger  x\n");
    }
}
