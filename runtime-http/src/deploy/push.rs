//! `wasmbox push`: a module on its way to a box, with the settings beside it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode, header, request::Builder};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use indicatif::ProgressBar;

use super::{
    print, progress, publish,
    pull::{self, Fetched},
    remote::{Good, Remote, RemoteArgs, RemoteError},
    session::RegistryArgs,
    table,
};
use crate::{
    registry::{Reference, reference::SCHEME, transport::Payload},
    store::settings::FunctionSettings,
    upload::{list::Described, routes::function_name},
};

#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// Module or component, binary or text; the settings in FILE's place with the ending .toml go with it; or a function in a registry, oci://...
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// The registry that takes it, instead of a box
    #[arg(value_name = "oci://REGISTRY/NAME:TAG", conflicts_with_all = ["name", "if_match", "create"])]
    pub target: Option<String>,
    /// Make an image for volumes of Kubernetes, of FILE or of all functions of the directory FILE
    #[arg(long, requires = "target", conflicts_with = "no_settings")]
    pub image: bool,
    /// The function's name [default: the file's, without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// Leave the settings of the function as they are; a registry gets none
    #[arg(long)]
    pub no_settings: bool,
    /// Only if this is what serves now: an ETag, as this command and `wasmbox list NAME` show them
    #[arg(long, value_name = "ETAG")]
    pub if_match: Option<String>,
    /// Only if there is no function of that name
    #[arg(long, conflicts_with = "if_match")]
    pub create: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// What is pushed, and whence.
enum Source<'a> {
    File(&'a Path),
    Fetched(Bytes),
}

/// What is read of the file at once.
const PIECE: usize = 64 << 10;

/// # Errors
/// [`RemoteError`]
pub fn push(arguments: &PushArgs) -> Result<ExitCode, RemoteError> {
    let fetched = arguments.file.to_str().filter(|text| text.starts_with(SCHEME)).map(pull::reference).transpose()?;
    check_flags(arguments, fetched.is_some())?;
    if let Some(target) = &arguments.target {
        return Ok(publish::publish(arguments, &pull::reference(target)?)?);
    }
    let remote = Remote::new(&arguments.remote)?;
    let name = name(arguments, fetched.as_ref())?;
    let (source, settings, signed) = match fetched {
        Some(reference) => {
            let Fetched { module, settings, signed } =
                pull::fetch(reference, &arguments.registry, !arguments.no_settings)?;
            (Source::Fetched(module), settings, signed)
        }
        None => (Source::File(&arguments.file), settings(&arguments.file)?, String::new()),
    };
    let is_fetched = matches!(source, Source::Fetched(_));
    let settings = match settings {
        _ if arguments.no_settings => Settings::Kept,
        Some(text) => Settings::These(text),
        // In a registry a function has all of its settings with it. Else those of another function would go with it.
        None if is_fetched => Settings::None,
        None => Settings::Kept,
    };
    let path = format!("/functions/{name}");
    let before = match remote.ask(Request::get(&path)) {
        Ok(answer) => Some(answer.document::<Described>()?),
        Err(RemoteError::Refused { status: StatusCode::NOT_FOUND, code, .. }) if code == "module-not-found" => None,
        Err(error) => return Err(error),
    };
    let stored = StoredSettings { remote: &remote, path: &path, create: arguments.create };
    let old = match &before {
        Some(before) if before.settings => stored.get()?,
        Some(_) | None => None,
    };
    // Of a new function, that does not serve without them; of one that is there, if the module does not fit those that it has. Else they are put
    // when the module is known to be good.
    let is_checked = arguments.if_match.is_some() || arguments.create;
    let is_first = match &before {
        None => arguments.if_match.is_none(),
        Some(_) if is_checked => false,
        Some(_) => match settings {
            Settings::Kept => false,
            // Not even for a moment.
            Settings::None => old.is_some(),
            Settings::These(ref text) => old.as_deref().is_some_and(reuses) && !reuses(text),
        },
    };
    if is_first {
        stored.put(&settings, None)?;
    }
    let answer = put_module(&remote, arguments, &source, &path);
    if let Err(error) = &answer
        && is_first
        && !matches!(error, RemoteError::Refused { status: StatusCode::PRECONDITION_FAILED, .. })
    {
        // Without their function they are nothing, or it has those that it had.
        let _ = stored.put(&old.map_or(Settings::None, Settings::These), None);
    }
    let answer = answer?;
    if !is_first {
        let etag = answer.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
        stored.put(&settings, etag.filter(|_| is_checked))?;
    }
    // With the settings its version is another.
    let now: Described = remote.ask(Request::get(&path))?.document()?;
    print(&format!("{name}: {}\n", said(before.as_ref(), &now, &settings, &signed)))
}

/// What becomes of the settings of the function.
enum Settings {
    Kept,
    These(Bytes),
    None,
}

/// Whether they ask for what not each module can do.
fn reuses(text: &[u8]) -> bool {
    let settings = std::str::from_utf8(text).ok().and_then(|text| FunctionSettings::read("", text).ok());
    settings.is_some_and(|settings| settings.instance.reuse.is_some())
}

/// The settings of one function in a box.
struct StoredSettings<'a> {
    remote: &'a Remote,
    path: &'a str,
    /// Only if there is no such function.
    create: bool,
}

impl StoredSettings<'_> {
    fn get(&self) -> Result<Option<Bytes>, RemoteError> {
        match self.remote.ask(Request::get(format!("{}/settings", self.path))) {
            Ok(answer) => Ok(Some(answer.body)),
            Err(RemoteError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, settings: &Settings, etag: Option<&str>) -> Result<(), RemoteError> {
        let path = format!("{}/settings", self.path);
        let conditions = |request: Builder| match etag {
            Some(etag) => request.header(header::IF_MATCH, etag),
            None if self.create => request.header(header::IF_NONE_MATCH, "*"),
            None => request,
        };
        match settings {
            Settings::Kept => Ok(()),
            Settings::These(text) => {
                self.remote.send(|| Ok((conditions(Request::put(&path)), Full::new(text.clone())))).map(drop)
            }
            Settings::None => self.remote.ask(conditions(Request::delete(&path))).map(drop),
        }
    }
}

/// What was done: `replaced, with its settings: 1.2 KiB, version 3, ETag ...`.
fn said(before: Option<&Described>, now: &Described, settings: &Settings, signed: &str) -> String {
    let done = match before {
        None => "created",
        Some(before) if before.etag == now.etag => "unchanged",
        // It is the settings that are others.
        Some(before) if before.sha256 == now.sha256 => "the same module",
        Some(_) => "replaced",
    };
    let with = match (settings, done) {
        (Settings::These(_), "the same module") => ", with other settings",
        (Settings::These(_), _) => ", with its settings",
        (Settings::None, _) if before.is_some_and(|before| before.settings) => ", without the settings that were there",
        (Settings::None | Settings::Kept, _) => "",
    };
    let version = now.version.map_or_else(String::new, |version| format!(", version {version}"));
    let (size, etag) = (table::size(now.bytes.unwrap_or(0)), table::etag(now.etag.as_deref()));
    format!("{done}{with}{signed}: {size}{version}, ETag {etag}")
}

/// What is said of somebody who does not take part was meant otherwise.
fn check_flags(arguments: &PushArgs, is_fetched: bool) -> Result<(), RemoteError> {
    let wrong = |flag, what, remedy| Err(RemoteError::Flag { flag, what, remedy });
    match (arguments.remote.said(), arguments.registry.said()) {
        (Some(flag), _) if arguments.target.is_some() => {
            wrong(flag, "a box", "the function goes to a registry; leave the flag out, or the registry")
        }
        (_, Some(flag)) if arguments.target.is_none() && !is_fetched => {
            wrong(flag, "a registry", "name it by oci://REGISTRY/NAME:TAG, or leave the flag out")
        }
        _ if arguments.target.is_some() && !arguments.registry.key.is_empty() => {
            let remedy = "what is pushed there is signed afterwards, by `cosign sign`; leave the flag out";
            wrong("--key", "a function out of a registry", remedy)
        }
        _ => Ok(()),
    }
}

fn name(arguments: &PushArgs, fetched: Option<&Reference>) -> Result<String, RemoteError> {
    let stem = || {
        if let Some(reference) = fetched {
            return reference.function().to_owned();
        }
        let name = arguments.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned())
    };
    let text = arguments.name.clone().unwrap_or_else(stem);
    match function_name(&text) {
        Ok(name) => Ok(name.to_string()),
        Err(_) => Err(RemoteError::Name { text }),
    }
}

/// Those beside the module, if there are any.
pub fn settings(file: &Path) -> Result<Option<Bytes>, RemoteError> {
    let path = file.with_extension("toml");
    match fs::read(&path) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RemoteError::File { path, source }),
    }
}

fn put_module(remote: &Remote, arguments: &PushArgs, source: &Source, path: &str) -> Result<Good, RemoteError> {
    let progress = progress::bar("sending");
    let request = |length: u64| {
        progress.set_length(length);
        progress.set_position(0);
        progress.set_message("sending");
        with_conditions(Request::put(path), arguments)
            .header(header::CONTENT_LENGTH, length)
            .header(header::CONTENT_TYPE, "application/wasm")
    };
    let answer = match source {
        Source::File(path) => remote.send(|| {
            let failed = |source| RemoteError::File { path: path.to_path_buf(), source };
            let file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if !metadata.is_file() {
                return Err(failed(io::Error::other("it is not a file")));
            }
            Ok((request(metadata.len()), body(file, progress.clone())))
        }),
        Source::Fetched(module) => remote.send(|| {
            let payload = Payload::new([module.clone()]).shown_by(&progress);
            Ok((request(payload.length()), payload))
        }),
    };
    progress.finish_and_clear();
    answer
}

fn with_conditions(request: Builder, arguments: &PushArgs) -> Builder {
    match &arguments.if_match {
        Some(etag) => request.header(header::IF_MATCH, format!("\"{}\"", etag.trim_matches('"'))),
        None if arguments.create => request.header(header::IF_NONE_MATCH, "*"),
        None => request,
    }
}

/// The file, piece by piece as the box takes it.
fn body(
    file: File,
    progress: ProgressBar,
) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, io::Error>> + Send> {
    StreamBody::new(stream::unfold((file, progress), |(mut file, progress)| async move {
        let mut piece = vec![0; PIECE];
        let read = match file.read(&mut piece) {
            Ok(0) => {
                progress.set_message("the box checks and compiles it");
                return None;
            }
            Ok(read) => read,
            Err(error) => return Some((Err(error), (file, progress))),
        };
        piece.truncate(read);
        progress.inc(read as u64);
        Some((Ok(Frame::data(Bytes::from(piece))), (file, progress)))
    }))
}
