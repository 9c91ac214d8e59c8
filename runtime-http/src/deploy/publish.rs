//! `wasmbox push FILE oci://...`: functions on their way to a registry, as artifacts or as an image.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use indicatif::HumanBytes;

use super::{print, progress, push::PushArgs, session::RegistryArgs, table};
use crate::{
    registry::{
        Reference, RegistryError,
        artifact::{self, Artifact},
        digest::Digest,
        document::{INDEX, MANIFEST},
        image::{Image, Layer},
        reference::SCHEME,
        transport::Payload,
    },
    store::name::ModuleName,
};

/// Of all functions of an image: they are in memory on their way.
const LARGEST_IMAGE: u64 = 1 << 30;

/// # Errors
/// [`RegistryError`]
pub fn publish(arguments: &PushArgs, target: &Reference) -> Result<ExitCode, RegistryError> {
    let Some(tag) = target.tag().filter(|_| target.digest().is_none()) else {
        return Err(RegistryError::NoTag { reference: target.to_string() });
    };
    if arguments.file.to_str().is_some_and(|text| text.starts_with(SCHEME)) {
        let source = io::Error::other("from one registry to another a copy is made by `oras copy` or `skopeo copy`");
        return Err(RegistryError::File { path: arguments.file.clone(), source });
    }
    let said =
        if arguments.image { push_image(arguments, target, tag) } else { push_artifact(arguments, target, tag) }?;
    print(&format!("{target}: {said}\n")).map_err(|error| RegistryError::Output(io::Error::other(error)))
}

/// A file of at most so many bytes as a module may have.
fn content(path: &Path, arguments: &RegistryArgs) -> Result<Bytes, RegistryError> {
    let failed = |source| RegistryError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a file")));
    }
    let bound = arguments.largest_module();
    let mut bytes = Vec::new();
    file.take(bound.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bound {
        let reason = format!("more than {}; --max-module-size says how large a module may be", HumanBytes(bound));
        return Err(RegistryError::Module { path: path.to_owned(), reason });
    }
    Ok(bytes.into())
}

/// The settings beside a module, as they travel.
fn settings(module: &Path) -> Result<Option<String>, RegistryError> {
    let path = module.with_extension("toml");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|source| RegistryError::File { path: path.clone(), source })?,
    };
    let wrong = |reason| RegistryError::Settings { of: path.display().to_string(), reason };
    artifact::settings(&text).map(Some).map_err(wrong)
}

fn push_artifact(arguments: &PushArgs, target: &Reference, tag: &str) -> Result<String, RegistryError> {
    let file = &arguments.file;
    let wrong = |reason| RegistryError::Module { path: file.clone(), reason };
    let module = artifact::binary(content(file, &arguments.registry)?).map_err(wrong)?;
    let settings = if arguments.no_settings { None } else { settings(file)? };
    let with = if settings.is_some() { ", with its settings" } else { "" };
    let size = table::size(module.len() as u64);
    let Artifact { config, layer, manifest } = Artifact::new(module, target.function(), settings).map_err(wrong)?;
    arguments.registry.with(target, async |registry| {
        registry.begin_push();
        let progress = progress::bar("sending");
        progress.set_length((layer.len() + config.len()) as u64);
        registry.put_blob(Digest::of(&layer), Payload::new([layer]), "the module", &progress).await?;
        registry.put_blob(Digest::of(&config), Payload::new([config]), "the configuration", &progress).await?;
        progress.finish_and_clear();
        registry.put_manifest(tag, MANIFEST, manifest.clone()).await
    })?;
    Ok(format!("pushed{with}: {size}, digest {}", Digest::of(&manifest)))
}

/// The functions of a directory, or one with its settings, by the names of their files.
fn functions(arguments: &PushArgs) -> Result<BTreeMap<String, Bytes>, RegistryError> {
    let root = &arguments.file;
    let failed = |source| RegistryError::File { path: root.clone(), source };
    let modules: Vec<PathBuf> = if fs::metadata(root).map_err(failed)?.is_dir() {
        let entries: io::Result<Vec<_>> = fs::read_dir(root).map_err(failed)?.collect();
        entries.map_err(failed)?.into_iter().map(|entry| entry.path()).filter(|path| is_function(path)).collect()
    } else if is_function(root) {
        vec![root.clone()]
    } else {
        Vec::new()
    };
    if modules.is_empty() {
        let reason =
            "no function: a file NAME.wasm or NAME.wat, with letters, digits, '.', '_' or '-', or a directory of them";
        return Err(RegistryError::Module { path: root.clone(), reason: reason.into() });
    }
    let (mut files, mut bytes) = (BTreeMap::new(), 0);
    for path in modules {
        let wrong = |reason| RegistryError::Module { path: path.clone(), reason };
        let module = content(&path, &arguments.registry)?;
        // As a box would find it; its own form is kept.
        artifact::binary(module.clone()).map_err(wrong)?;
        bytes += module.len() as u64;
        if bytes > LARGEST_IMAGE {
            return Err(wrong(format!("the functions of an image have {} at most", HumanBytes(LARGEST_IMAGE))));
        }
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(text) = settings(&path)? {
            files.insert(name(&path.with_extension("toml")), Bytes::from(text));
        }
        files.insert(name(&path), module);
    }
    Ok(files)
}

fn is_function(path: &Path) -> bool {
    let ending = path.extension().is_some_and(|ending| ending == "wasm" || ending == "wat");
    ending && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(ModuleName::is_valid)
}

fn push_image(arguments: &PushArgs, target: &Reference, tag: &str) -> Result<String, RegistryError> {
    let files: Vec<(String, Bytes)> = functions(arguments)?.into_iter().collect();
    let wrong = |reason| RegistryError::Module { path: arguments.file.clone(), reason };
    let layer = Layer::new(&files);
    let Image { configs, manifests, index } = Image::new(&layer).map_err(wrong)?;
    let (size, digest) = (table::size(layer.size), Digest::of(&index));
    arguments.registry.with(target, async |registry| {
        registry.begin_push();
        let progress = progress::bar("sending");
        progress.set_length(layer.size + configs.iter().map(|config| config.len() as u64).sum::<u64>());
        registry.put_blob(layer.digest, Payload::new(layer.pieces), "the functions", &progress).await?;
        for config in configs {
            registry.put_blob(Digest::of(&config), Payload::new([config]), "the configuration", &progress).await?;
        }
        progress.finish_and_clear();
        for manifest in manifests {
            registry.put_manifest(&Digest::of(&manifest).to_string(), MANIFEST, manifest).await?;
        }
        registry.put_manifest(tag, INDEX, index).await
    })?;
    let functions = files.iter().filter(|(name, _)| !name.ends_with(".toml")).count();
    let what = if functions == 1 { "1 function".to_owned() } else { format!("{functions} functions") };
    Ok(format!("pushed as an image of {what}: {size}, digest {digest}"))
}
