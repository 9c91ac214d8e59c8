//! `wasmbox pull`: a function out of a registry, into files or on its way to a box.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use indicatif::{HumanBytes, ProgressBar};

use super::{
    print, progress,
    remote::RemoteError,
    session::{RegistryArgs, or_interrupted},
    table,
};
use crate::{
    module_format::Format,
    registry::{
        Reference, Registry, RegistryError,
        artifact::{self, SETTINGS},
        digest::Digest,
        document::Descriptor,
        landing::{Aside, Landing},
        signature::key::Keys,
    },
};

#[derive(Debug, clap::Args)]
pub struct PullArgs {
    /// The function: oci://REGISTRY/NAME, with :TAG, which is `latest` otherwise, or @sha256:...
    #[arg(value_name = "oci://REGISTRY/NAME")]
    pub reference: String,
    /// The module's file, or an existing directory for it [default: NAME.wasm in this one]
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Replace files that are there; settings that are there go if none came
    #[arg(long)]
    pub force: bool,
    /// Write the module alone, and leave settings that are there
    #[arg(long)]
    pub no_settings: bool,
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Larger than any configuration, of which a component's lists its interfaces.
const LARGEST_CONFIG: u64 = 1 << 20;
/// What is looked at to know a module.
const PREAMBLE: usize = 8;

/// What a reference to a function in a registry leads to: what its manifest says of it.
struct ResolvedFunction {
    layer: Descriptor,
    settings: Option<String>,
    digest: Digest,
    /// The key that it is signed by, if that was asked for.
    signer: Option<PathBuf>,
}

/// A function in memory.
pub struct Fetched {
    pub module: Bytes,
    /// If they are wanted.
    pub settings: Option<Bytes>,
    /// As in words: by whom it is signed, if that was asked for.
    pub signed: String,
}

/// What is said of who has signed it.
fn signed(signer: Option<&Path>) -> String {
    signer.map_or_else(String::new, |path| format!(", signed by the key of {}", path.display()))
}

/// # Errors
/// [`RegistryError::Reference`]
pub fn reference(text: &str) -> Result<Reference, RegistryError> {
    text.parse().map_err(|source| RegistryError::Reference { text: text.to_owned(), source })
}

/// # Errors
/// [`RemoteError`]
pub fn pull(arguments: &PullArgs) -> Result<ExitCode, RemoteError> {
    let reference = reference(&arguments.reference)?;
    let module = target(arguments, &reference)?;
    let beside = module.with_extension("toml");
    if !arguments.force {
        absent(&module)?;
    }
    let keys = arguments.registry.keys()?;
    let function = arguments.registry.with(&reference, async |registry| {
        or_interrupted(async {
            let function = resolve(registry, &arguments.registry, keys.as_ref(), !arguments.no_settings).await?;
            let mut landing = Landing::new(&module)?;
            receive(registry, &function, &mut |piece| landing.write(piece)).await?;
            place(landing, function.settings.as_deref(), &beside, arguments)?;
            Ok(function)
        })
        .await
    })?;
    let with = if function.settings.is_some() { format!(" and {}", beside.display()) } else { String::new() };
    let (size, signed) = (table::size(function.layer.size), signed(function.signer.as_deref()));
    print(&format!("{reference}: {}{with}: {size}, digest {}{signed}\n", module.display(), function.digest))
}

/// Where the module goes. Names come from the command line, never from the registry.
fn target(arguments: &PullArgs, reference: &Reference) -> Result<PathBuf, RegistryError> {
    let name = format!("{}.wasm", reference.function());
    let Some(output) = &arguments.output else { return Ok(name.into()) };
    if output.is_dir() {
        return Ok(output.join(name));
    }
    let wrong = |reason| Err(RegistryError::Target { path: output.clone(), reason });
    if output.file_name().is_none() || output.as_os_str().to_string_lossy().ends_with('/') {
        return wrong("there is no such directory");
    }
    if output.extension().is_some_and(|ending| ending == "toml") {
        return wrong("that is where the settings go; name the module's file, as in hello.wasm");
    }
    Ok(output.clone())
}

fn absent(path: &Path) -> Result<(), RegistryError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RegistryError::File { path: path.to_owned(), source }),
        Ok(_) => Err(RegistryError::Exists { path: path.to_owned() }),
    }
}

/// Puts both files in their places, or none: the settings first, without which the module is not to serve, nor beside those of another.
fn place(module: Landing, settings: Option<&str>, beside: &Path, arguments: &PullArgs) -> Result<(), RegistryError> {
    if arguments.no_settings {
        return module.place(arguments.force);
    }
    let write = |text: &str| -> Result<Landing, RegistryError> {
        let mut landing = Landing::new(beside)?;
        landing.write(text.as_bytes())?;
        Ok(landing)
    };
    let settings = settings.map(write).transpose()?;
    let old = if arguments.force {
        Aside::take(beside)?
    } else {
        absent(beside)?;
        None
    };
    let has_settings = settings.is_some();
    if let Some(settings) = settings {
        settings.place(arguments.force)?;
    }
    let placed = module.place(arguments.force);
    if placed.is_err() && has_settings {
        // They are this pull's; the old ones go back to their place.
        let _ = fs::remove_file(beside);
    } else if let (Ok(()), Some(old)) = (&placed, old) {
        old.discard();
    }
    placed
}

/// A function that is on its way to somewhere else.
///
/// # Errors
/// [`RegistryError`]
pub fn fetch(reference: Reference, arguments: &RegistryArgs, has_settings: bool) -> Result<Fetched, RegistryError> {
    let keys = arguments.keys()?;
    arguments.with(&reference, async |registry| {
        let function = resolve(registry, arguments, keys.as_ref(), has_settings).await?;
        let mut module = Vec::new();
        receive(registry, &function, &mut |piece| {
            module.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        let signed = signed(function.signer.as_deref());
        Ok(Fetched { module: module.into(), settings: function.settings.map(Bytes::from), signed })
    })
}

/// Asks once what the reference names, and who has signed just that. What is fetched afterwards is named there by its digest.
async fn resolve(
    registry: &mut Registry,
    arguments: &RegistryArgs,
    keys: Option<&Keys>,
    has_settings: bool,
) -> Result<ResolvedFunction, RegistryError> {
    let reference = registry.reference.to_string();
    let (document, digest) = registry.document().await?;
    let mut manifest = artifact::function(document, &reference)?;
    let signer = match keys {
        Some(keys) => Some(registry.signer(digest, keys).await?.path.clone()),
        None => None,
    };
    let none = |is: String| RegistryError::NotFunction { reference: reference.clone(), is };
    let layer = manifest.layers.swap_remove(0);
    let bound = arguments.largest_module();
    if layer.size > bound {
        let (has, most) = (HumanBytes(layer.size), HumanBytes(bound));
        return Err(none(format!(
            "its module has {has}, more than {most}; --max-module-size says how large it may be"
        )));
    }
    if manifest.config.size > LARGEST_CONFIG {
        return Err(none(format!("its configuration has more than {}", HumanBytes(LARGEST_CONFIG))));
    }
    let settings = manifest.annotations.remove(SETTINGS).filter(|_| has_settings);
    let settings = settings.map(|text| artifact::settings(&text)).transpose();
    let settings = settings.map_err(|reason| RegistryError::Settings { of: reference.clone(), reason })?;
    let mut config = Vec::new();
    registry
        .blob(&manifest.config, "the configuration", |piece| {
            config.extend_from_slice(piece);
            Ok(())
        })
        .await?;
    artifact::check(&config, layer.digest, &reference)?;
    Ok(ResolvedFunction { layer, settings, digest, signer })
}

/// Receives the module, which goes to `take`, piece by piece. Only when this returns it is known to be right.
async fn receive(
    registry: &mut Registry,
    function: &ResolvedFunction,
    take: &mut dyn FnMut(&[u8]) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    let progress: ProgressBar = progress::bar("receiving");
    progress.set_length(function.layer.size);
    let mut preamble = Vec::with_capacity(PREAMBLE);
    let received = registry
        .blob(&function.layer, "the module", |piece| {
            preamble.extend(piece.iter().take(PREAMBLE - preamble.len()));
            progress.inc(piece.len() as u64);
            take(piece)
        })
        .await;
    progress.finish_and_clear();
    received?;
    match Format::of(&preamble) {
        Some(Format::Module | Format::Component) => Ok(()),
        Some(Format::Text | Format::Native) | None => Err(RegistryError::NotFunction {
            reference: registry.reference.to_string(),
            is: "its layer is no binary module or component".into(),
        }),
    }
}
