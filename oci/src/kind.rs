//! What a container is.

use crate::spec::{Spec, SpecError, cri};

/// Says which container is a WasmBox: on a container `true` or `false`; on a pod, whose annotations all its containers see, the names of
/// those that are, separated by commas.
pub const ANNOTATION: &str = "wasmbox.dev/container";
/// The entrypoint of an image that brings its own box.
const BINARY: &str = "wasmbox";
const MODULES: [&str; 2] = [".wasm", ".wat"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A pod's pause container.
    Sandbox,
    /// Runs as it is.
    Ordinary,
    /// Runs the node's `wasmbox`.
    WasmBox(Entry),
}

/// What the box's process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The entrypoint was `wasmbox`: its arguments stay.
    AsGiven { arguments: Vec<String> },
    /// The entrypoint was a module: it is run once.
    Run { module: String, arguments: Vec<String> },
    /// An annotation says so, of an image with another entrypoint: it serves.
    Serve,
}

#[derive(Debug, thiserror::Error)]
pub enum KindError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(
        "annotation {ANNOTATION}={value:?}: expected true, false, or names of containers of this pod, separated by commas"
    )]
    Annotation { value: String },
}

impl Kind {
    /// Decides by the annotation, else by the entrypoint.
    ///
    /// # Errors
    /// [`KindError`], if the spec or the annotation cannot be understood.
    pub fn of(spec: &Spec) -> Result<Kind, KindError> {
        if spec.annotation(cri::CONTAINER_TYPE) == Some("sandbox") {
            return Ok(Kind::Sandbox);
        }
        let args = spec.args()?;
        let entry = entry(&args);
        let annotated = spec.annotation(ANNOTATION).map(|value| annotated(value, spec)).transpose()?;
        Ok(match (annotated, entry) {
            (Some(false), _) | (None, None) => Kind::Ordinary,
            (Some(true) | None, Some(entry)) => Kind::WasmBox(entry),
            (Some(true), None) => Kind::WasmBox(Entry::Serve),
        })
    }
}

fn annotated(value: &str, spec: &Spec) -> Result<bool, KindError> {
    match value {
        "true" => return Ok(true),
        "false" => return Ok(false),
        _ => {}
    }
    // Names of containers are DNS labels (RFC 1123).
    let is_label = |name: &str| {
        (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let names: Vec<&str> = value.split(',').map(str::trim).collect();
    if !names.iter().all(|name| is_label(name)) {
        return Err(KindError::Annotation { value: value.to_owned() });
    }
    Ok(spec.annotation(cri::CONTAINER_NAME).is_some_and(|own| names.contains(&own)))
}

fn entry(args: &[String]) -> Option<Entry> {
    let (first, rest) = args.split_first()?;
    let name = first.rsplit('/').next().unwrap_or(first);
    if name == BINARY {
        return Some(Entry::AsGiven { arguments: rest.to_vec() });
    }
    let is_module = MODULES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
    is_module.then(|| Entry::Run { module: first.clone(), arguments: rest.to_vec() })
}
