//! How the handler gets into containerd's configuration, and out of it.
//!
//! What an import does depends on containerd's version, and so does what it takes to leave the other runtimes as they are: up to 1.7 an
//! imported file replaces a plugin's whole section, and naming any runtime takes the built-in one away. So nothing is assumed. The ways are
//! tried on drafts, from the least intrusive to the most, and the first is taken whose `containerd config dump` has the handler and is
//! otherwise the same as before.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use crate::{
    block::{self, Without},
    dump::{Dump, DumpError, HANDLER, PLUGIN_1, PLUGIN_2, PLUGIN_3},
    handler::{self, Handler},
    node::Node,
    replace::{self, Draft, FileError},
};

const DROP_IN: &str = "wasmbox.toml";
/// How a file of ours begins.
const DROP_IN_NOTE: &str = "# Written by wasmbox-installer, removed by its `uninstall`";
const MADE_DIRECTORY: &str = ", with its directory";
/// The configuration as it was before; only where it is edited.
const BACKUP: &str = ".before-wasmbox";
/// A template of k3s and RKE2 that is all theirs.
const BASE: &str = "{{ template \"base\" . }}\n";

#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("no way to add the handler to {} leaves the rest of the configuration as it is; the last try: {reason}", config.display())]
    NoWay { config: PathBuf, reason: String },
}

type Result<T> = std::result::Result<T, RegistrationError>;

pub struct Registration<'a> {
    pub node: &'a Node,
}

/// What was in a file, or that there was none.
#[derive(Debug)]
struct Saved {
    path: PathBuf,
    text: Option<String>,
}

/// The files as they were.
#[derive(Debug)]
#[must_use]
pub struct Undo {
    saved: Vec<Saved>,
    drop_in: Option<PathBuf>,
}

impl Undo {
    /// # Errors
    /// [`RegistrationError`], naming the file that cannot be put back.
    pub fn restore(self) -> Result<()> {
        if let Some(path) = self.drop_in {
            remove_drop_in(&path)?;
        }
        for Saved { path, text } in self.saved {
            match text {
                Some(text) => put_if_other(&path, &text)?,
                None => replace::remove(&path)?,
            }
        }
        Ok(())
    }
}

impl Registration<'_> {
    /// None, if nothing had to be changed.
    ///
    /// # Errors
    /// [`RegistrationError`]; the files are then as they were.
    pub fn add(&self) -> Result<Option<Undo>> {
        let live = self.dump(&self.node.config);
        let edited = self.edited()?;
        let drop_ins = self.drop_ins(live.as_ref().ok());
        if let Ok(live) = &live
            && Handler::new(live).is_in(live)
            && !is_outdated(&edited, &drop_ins)?
        {
            return Ok(None);
        }
        let backup = backup(&edited);
        let saved = |path: &PathBuf| Ok(Saved { path: path.clone(), text: replace::read(path)? });
        let saved = [&edited, &backup].into_iter().chain(&drop_ins).map(saved).collect::<Result<_>>()?;
        let mut undo = Undo { saved, drop_in: None };
        match self.change(&edited, &drop_ins) {
            Ok(drop_in) => {
                undo.drop_in = drop_in;
                Ok(Some(undo))
            }
            Err(error) => {
                undo.restore()?;
                Err(error)
            }
        }
    }

    /// The file of its own, if it got one.
    fn change(&self, edited: &Path, drop_ins: &[PathBuf]) -> Result<Option<PathBuf>> {
        // Away with what is ours and not right any more.
        for path in drop_ins {
            remove_drop_in(path)?;
        }
        let edited_text = without_block(replace::read(edited)?);
        let config_text = without_block(replace::read(&self.node.config)?);
        let before = self.try_text(config_text.as_deref())?;
        let handler = Handler::new(&before);
        let fits = |dump: &Dump| handler.is_in(dump) && dump.others() == before.others();

        let version =
            config_text.as_deref().and_then(version).or(config_text.is_none().then(|| before.version().min(3)));
        let plugins: &[&str] = match version {
            Some(3..) => &[PLUGIN_3],
            Some(2) => &[PLUGIN_2],
            // The short name is that of 1.x, 2.x reads such a file as one of version 2.
            Some(_) | None => &[PLUGIN_1, PLUGIN_2],
        };

        // A file of its own, where imported files are merged: since 2.0, whose dump has version 3.
        if before.version() >= 3 {
            if let (Some(text), true) = (&edited_text, edited == self.node.config) {
                put_if_other(edited, text)?;
            }
            let directories = before.import_directories().into_iter();
            // What has to be made goes again: one level, no more.
            for directory in directories.filter(|path| path.parent().is_some_and(Path::exists)) {
                let path = directory.join(DROP_IN);
                let made = if directory.exists() { "" } else { MADE_DIRECTORY };
                replace::make_directory(&directory)?;
                let version = version.map(|version| format!("version = {version}\n")).unwrap_or_default();
                put(&path, &format!("{DROP_IN_NOTE}{made}.\n{version}\n{}", handler.text(plugins[0])))?;
                if self.dump(&self.node.config).is_ok_and(|dump| fits(&dump)) {
                    eprintln!("{}: written", path.display());
                    self.settle(edited, edited_text.as_deref())?;
                    return Ok(Some(path));
                }
                remove_drop_in(&path)?;
            }
        }

        // At the end of the file, with the runtimes that would be lost.
        let mut reason = String::new();
        for plugin in plugins {
            let mut block = match (&config_text, version) {
                (None, Some(version)) => format!("version = {version}\n"),
                _ => String::new(),
            };
            block += &handler.text(plugin);
            let mut dump = self.try_text(Some(&block::add(config_text.as_deref(), &block)));
            if let Ok(with) = &dump {
                let lost: Vec<_> =
                    before.runtime_names().filter(|name| with.runtime(name).is_none() && *name != HANDLER).collect();
                for name in &lost {
                    block += &handler::runtime_text(plugin, name, before.runtime(name).unwrap_or(&Table::new()));
                }
                if !lost.is_empty() {
                    dump = self.try_text(Some(&block::add(config_text.as_deref(), &block)));
                }
            }
            match dump {
                Ok(dump) if fits(&dump) => {
                    self.edit(edited, edited_text.as_deref(), &block)?;
                    return Ok(None);
                }
                Ok(_) => reason = "other settings would change".into(),
                Err(error) => reason = error.to_string(),
            }
        }
        Err(RegistrationError::NoWay { config: self.node.config.clone(), reason })
    }

    /// The file without our block; it goes, if it was there because of it alone.
    fn settle(&self, edited: &Path, text: Option<&str>) -> Result<()> {
        match text {
            Some(text) => put_if_other(edited, text)?,
            None => replace::remove(edited)?,
        }
        Ok(replace::remove(&backup(edited))?)
    }

    fn edit(&self, edited: &Path, text: Option<&str>, block: &str) -> Result<()> {
        let base = if text.is_none() && self.node.templates.is_some() { BASE } else { "" };
        if let Some(text) = text {
            put_if_other(&backup(edited), text)?;
        }
        let with = block::add(text, &format!("{base}{block}"));
        put_if_other(edited, &with)?;
        eprintln!("{}: edited", edited.display());
        Ok(())
    }

    /// Takes the handler out. False, if it was not in there.
    ///
    /// # Errors
    /// [`RegistrationError`]
    pub fn remove(&self) -> Result<bool> {
        let live = self.dump(&self.node.config);
        let edited = self.edited()?;
        let mut changed = false;
        if let Some(Without { text, made }) = replace::read(&edited)?.as_deref().and_then(block::remove) {
            if made {
                replace::remove(&edited)?;
            } else if live.is_ok() && self.node.templates.is_none() {
                // A configuration that works goes on to work.
                let draft = Draft::write(&edited, text.as_bytes(), 0o644)?;
                self.dump(draft.path())?;
                draft.commit()?;
            } else {
                put(&edited, &text)?;
            }
            eprintln!("{}: restored", edited.display());
            changed = true;
        }
        for path in self.drop_ins(live.as_ref().ok()) {
            if remove_drop_in(&path)? {
                eprintln!("{}: removed", path.display());
                changed = true;
            }
        }
        replace::remove(&backup(&edited))?;
        Ok(changed)
    }

    /// The file that is edited if any is: the configuration, or what it is rendered from.
    fn edited(&self) -> Result<PathBuf> {
        let Some(templates) = &self.node.templates else { return Ok(self.node.config.clone()) };
        let rendered = replace::read(&self.node.config)?.unwrap_or_default();
        let new = version(&rendered).is_some_and(|version| version >= 3);
        Ok(if new { templates.version_3.clone() } else { templates.version_2.clone() })
    }

    /// Files of ours, wherever they may be imported from.
    fn drop_ins(&self, live: Option<&Dump>) -> Vec<PathBuf> {
        let beside = |name| self.node.config.with_file_name(name);
        let mut directories: Vec<_> = live.map(Dump::import_directories).unwrap_or_default();
        directories.extend(["conf.d", "config.toml.d", "config-v3.toml.d"].map(beside));
        directories.sort();
        directories.dedup();
        let paths = directories.into_iter().map(|directory| directory.join(DROP_IN));
        paths.filter(|path| fs::read_to_string(path).is_ok_and(|text| text.starts_with(DROP_IN_NOTE))).collect()
    }

    fn dump(&self, config: &Path) -> Result<Dump> {
        Ok(Dump::read(&self.node.containerd, config)?)
    }

    /// What containerd would make of this configuration.
    fn try_text(&self, text: Option<&str>) -> Result<Dump> {
        let Some(text) = text else { return self.dump(&self.node.config) };
        if let Some(directory) = self.node.config.parent() {
            replace::make_directory(directory)?;
        }
        let draft = Draft::write(&self.node.config, text.as_bytes(), 0o644)?;
        self.dump(draft.path())
    }
}

fn version(text: &str) -> Option<i64> {
    text.parse::<Table>().ok()?.get("version").and_then(Value::as_integer)
}

/// Whether it is as an earlier version wrote it.
fn is_outdated(edited: &Path, drop_ins: &[PathBuf]) -> Result<bool> {
    if replace::read(edited)?.as_deref().and_then(block::find).is_some_and(handler::is_outdated) {
        return Ok(true);
    }
    for path in drop_ins {
        if replace::read(path)?.as_deref().is_some_and(handler::is_outdated) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The text as if we had never been there; none, if the file would not be either.
fn without_block(text: Option<String>) -> Option<String> {
    match text.as_deref().and_then(block::remove) {
        Some(Without { made: true, .. }) => None,
        Some(Without { text, .. }) => Some(text),
        None => text,
    }
}

fn backup(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(BACKUP);
    path.into()
}

fn put(path: &Path, text: &str) -> Result<()> {
    Ok(Draft::write(path, text.as_bytes(), 0o644)?.commit()?)
}

fn put_if_other(path: &Path, text: &str) -> Result<()> {
    if replace::read(path)?.as_deref() == Some(text) { Ok(()) } else { put(path, text) }
}

/// False, if it was not there. Its directory goes with it, if it came with it and nobody else uses it.
fn remove_drop_in(path: &Path) -> Result<bool> {
    let Some(text) = replace::read(path)? else { return Ok(false) };
    replace::remove(path)?;
    if text.starts_with(&format!("{DROP_IN_NOTE}{MADE_DIRECTORY}"))
        && let Some(directory) = path.parent()
    {
        // If it is not empty it stays.
        let _ = fs::remove_dir(directory);
    }
    Ok(true)
}
