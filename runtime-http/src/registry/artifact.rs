//! What a function is in a registry: one layer, the module; and its settings, in an annotation of the manifest.
//!
//! Tools that know nothing of settings take artifacts of exactly one layer only (`wkg`, and what else uses the crate `oci-wasm`), so there is no
//! layer for them. An annotation is part of the manifest, whose digest names both.

use bytes::Bytes;
use serde::Deserialize;
use wasmparser::{Parser, Payload};

use super::{
    RegistryError,
    digest::Digest,
    document::{
        Annotations, Component, Descriptor, Document, MANIFEST, Manifest, WASM_CONFIG, WASM_LAYER, WasmConfig, kind_of,
    },
};
use crate::{
    excerpt::excerpt,
    module_format::{Format, check_text},
    store::{
        LARGEST_SETTINGS,
        settings::{BadSettings, FunctionSettings},
    },
};

/// The annotation with the settings, as they are in the file beside the module.
pub const SETTINGS: &str = "dev.wasmbox.settings";
/// Where `oras pull` writes the layer.
const TITLE: &str = "org.opencontainers.image.title";
const ARCHITECTURE: &str = "wasm";
/// What a core module and a component are called there.
const MODULE: &str = "wasip1";
const COMPONENT: &str = "wasip2";
/// Of another format nobody can know whether it runs here.
const SYSTEMS: [&str; 3] = [MODULE, COMPONENT, "wasip3"];
/// So that the same function has the same digest, whenever it is pushed.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What is pushed: blobs, and the manifest that names them.
pub struct Artifact {
    pub config: Bytes,
    pub layer: Bytes,
    pub manifest: Bytes,
}

/// The binary form of a module or component.
///
/// # Errors
/// If it is neither, in words.
pub fn binary(module: Bytes) -> Result<Bytes, String> {
    match Format::of(&module) {
        Some(Format::Module | Format::Component) => Ok(module),
        Some(Format::Text) => {
            check_text(module.len()).map_err(|error| error.to_string())?;
            wat::parse_bytes(&module).map(|binary| binary.into_owned().into()).map_err(excerpt)
        }
        Some(Format::Native) => {
            Err("native code runs on one kind of machine; push the module that it was made of".into())
        }
        None => Err("no module, neither binary nor text".into()),
    }
}

/// Settings as they travel: without the table `build`, which is a command for the machine on which the function was written.
///
/// # Errors
/// If they are no settings, in words.
pub fn settings(text: &str) -> Result<String, String> {
    if text.len() as u64 > LARGEST_SETTINGS {
        return Err(format!("have more than {LARGEST_SETTINGS} bytes"));
    }
    let mut table: toml::Table = text.parse().map_err(|error| format!("are not TOML: {}", excerpt(error)))?;
    let travels = match table.remove("build") {
        Some(_) => toml::to_string(&table).map_err(|error| format!("cannot be written: {error}"))?,
        None => text.to_owned(),
    };
    // What an operator grants is for the box to check.
    match FunctionSettings::well_formed("", &travels) {
        Ok(_) => Ok(travels),
        Err(BadSettings::Unreadable { reason, .. }) => Err(format!("are no function's: {reason}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Imports and exports of the outermost component.
fn interfaces(component: &[u8]) -> Result<Component, String> {
    let mut found = Component::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| error.to_string())? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(import.map_err(|error| error.to_string())?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export.map_err(|error| error.to_string())?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

impl Artifact {
    /// Of the binary form of a module, which is to be called `name`.
    ///
    /// # Errors
    /// If the module cannot be read, in words.
    pub fn new(module: Bytes, name: &str, settings: Option<String>) -> Result<Artifact, String> {
        let is_component = Format::of(&module) == Some(Format::Component);
        let mut layer = Descriptor::of(WASM_LAYER, &module);
        layer.annotations.insert(TITLE.to_owned(), format!("{name}.wasm"));
        let config = WasmConfig {
            created: CREATED.to_owned(),
            architecture: ARCHITECTURE.to_owned(),
            os: if is_component { COMPONENT } else { MODULE }.to_owned(),
            layer_digests: vec![layer.digest],
            component: if is_component { Some(interfaces(&module)?) } else { None },
        };
        let config = json(&config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: None,
            config: Descriptor::of(WASM_CONFIG, &config),
            layers: vec![layer],
            annotations: settings.into_iter().map(|text| (SETTINGS.to_owned(), text)).collect::<Annotations>(),
        };
        Ok(Artifact { manifest: json(&manifest)?, config, layer: module })
    }
}

/// # Errors
/// In words. There are no such documents.
pub fn json(document: &impl serde::Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(document).map(Bytes::from).map_err(|error| error.to_string())
}

/// The manifest of a function, if it is one.
///
/// # Errors
/// [`RegistryError::NotFunction`], saying what it is.
pub fn function(document: Document, reference: &str) -> Result<Manifest, RegistryError> {
    let none = |is: String| RegistryError::NotFunction { reference: reference.to_owned(), is };
    let manifest = match document {
        Document::Manifest(manifest) => *manifest,
        Document::Index(index) => {
            let first: Vec<String> = index.manifests.iter().take(4).map(|one| one.digest.to_string()).collect();
            return Err(none(format!(
                "an index of {} manifests, as images for several platforms have it; name one of them: @{}",
                index.manifests.len(),
                first.join(", @")
            )));
        }
    };
    if manifest.config.media_type != WASM_CONFIG {
        let known = kind_of(&manifest.config.media_type).map(str::to_owned);
        let kind = manifest.artifact_type.as_ref().unwrap_or(&manifest.config.media_type);
        let is = known.unwrap_or_else(|| format!("an artifact of the type {:?}", excerpt(kind)));
        return Err(none(format!("{is}; a function's configuration is of the type {WASM_CONFIG}")));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(none(format!("it has {} layers, and a function has one", manifest.layers.len())));
    };
    if layer.media_type != WASM_LAYER {
        return Err(none(format!(
            "its layer is of the type {:?}, and a module {WASM_LAYER}",
            excerpt(&layer.media_type)
        )));
    }
    Ok(manifest)
}

/// Whether the configuration is that of something that runs here, and of that layer.
///
/// # Errors
/// [`RegistryError`], saying what it is.
pub fn check(config: &[u8], layer: Digest, reference: &str) -> Result<(), RegistryError> {
    /// What counts of it; the rest is for people.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        architecture: Option<String>,
        os: Option<String>,
        layer_digests: Option<Vec<Digest>>,
    }
    let config: Config = serde_json::from_slice(config).map_err(|error| RegistryError::Document {
        reference: reference.to_owned(),
        what: "the configuration",
        reason: excerpt(error),
    })?;
    let none = |is: String| Err(RegistryError::NotFunction { reference: reference.to_owned(), is });
    let (Some(architecture), Some(os)) = (config.architecture, config.os) else {
        return none("its configuration names no architecture, or no system (os)".into());
    };
    if architecture != ARCHITECTURE {
        let is = excerpt(&architecture);
        return none(format!("it is for the architecture {is:?}, and a box runs {ARCHITECTURE:?}"));
    }
    if !SYSTEMS.contains(&os.as_str()) {
        return none(format!("it is for {:?}, and a box runs {}", excerpt(&os), SYSTEMS.join(", ")));
    }
    if config.layer_digests.is_some_and(|digests| !digests.is_empty() && digests != [layer]) {
        return none("its configuration names another layer than its manifest".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_the_same_artifact_each_time() {
        let module = binary(Bytes::from_static(b"(module)")).unwrap();
        let made = || Artifact::new(module.clone(), "hello", Some("args = ['x']".into())).unwrap();
        let artifact = made();
        assert_eq!(artifact.manifest, made().manifest);
        let document = Document::read(&artifact.manifest, "").unwrap();
        let manifest = function(document, "r").unwrap();
        assert_eq!(manifest.annotations[SETTINGS], "args = ['x']");
        assert_eq!(manifest.layers[0].digest, Digest::of(&module));
        check(&artifact.config, Digest::of(&module), "r").unwrap();
        assert!(check(&artifact.config, Digest::of(b"other"), "r").is_err());
    }

    #[test]
    fn components_name_their_interfaces() {
        let text = r#"(component
            (import "wasi:cli/environment@0.2.0" (instance))
            (component (import "inner" (instance)))
            (instance $i)
            (export "wasi:cli/run@0.2.0" (instance $i)))"#;
        let module = binary(Bytes::from_static(text.as_bytes())).unwrap();
        let artifact = Artifact::new(module, "hello", None).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&artifact.config).unwrap();
        assert_eq!(config["os"], "wasip2");
        let interfaces = |text: &str| serde_json::json!([text]);
        assert_eq!(config["component"]["imports"], interfaces("wasi:cli/environment@0.2.0"));
        assert_eq!(config["component"]["exports"], interfaces("wasi:cli/run@0.2.0"));
    }

    #[test]
    fn what_others_write_into_a_configuration_does_not_matter() {
        let is_function = |config: &str| check(config.as_bytes(), Digest::of(b""), "r").is_ok();
        for good in [
            r#"{"architecture": "wasm", "os": "wasip2"}"#,
            r#"{"architecture": "wasm", "os": "wasip1", "layerDigests": null, "created": null, "component": null}"#,
            r#"{"architecture": "wasm", "os": "wasip3", "layerDigests": [], "created": 1, "component": {"imports": null}}"#,
        ] {
            assert!(is_function(good), "{good}");
        }
        for wrong in ["", "[]", "{}", r#"{"architecture": null, "os": null}"#, r#"{"architecture": "wasm"}"#] {
            assert!(!is_function(wrong), "{wrong}");
        }
    }

    #[test]
    fn settings_travel_without_what_builds_them() {
        let plain = "# A comment\nargs = ['x']\n";
        assert_eq!(settings(plain).as_deref(), Ok(plain));
        assert_eq!(settings("args = ['x']\n[build]\ncommand = 'rm -rf ~'\n").as_deref(), Ok("args = [\"x\"]\n"));
        assert!(settings("a = ").unwrap_err().contains("TOML"));
        // What a box would not take, whatever its operator grants; but not what one may grant.
        assert!(settings("a = 1").unwrap_err().contains("are no function's"));
        assert!(settings("env = { '' = 'x' }").unwrap_err().contains("empty name"));
        let granted = "allowed-outbound-hosts = ['a.example:80']\npreopens = [{ host = '/nowhere', guest = '/' }]\n[limits]\nmemory-request = '3Gi'\n";
        assert_eq!(settings(granted).as_deref(), Ok(granted));
        assert!(settings(&"#".repeat(70_000)).unwrap_err().contains("65536"));
    }

    #[test]
    fn what_is_no_module_is_refused() {
        for wrong in [&b""[..], b"hello", b"#!/bin/sh"] {
            assert!(binary(Bytes::from_static(wrong)).is_err());
        }
        assert!(binary(Bytes::from_static(b"(nothing")).is_err());
    }
}
