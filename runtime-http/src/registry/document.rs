//! Documents of the OCI image specification, and of the CNCF's artifacts of WebAssembly, as far as they are written or looked at here.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use super::digest::Digest;
use crate::excerpt::excerpt;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What a manifest is asked for as: a registry answers 404 to who does not accept what it has.
pub const ACCEPTED: &str = concat!(
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"
);

/// Of a function's configuration, and of its only layer.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
pub const WASM_LAYER: &str = "application/wasm";
/// Of a container's image.
pub const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

pub type Annotations = BTreeMap<String, String>;

/// Annotations of which none is there twice: who has looked at them before, and perhaps signed them, may have seen the other one.
fn distinct<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Annotations, D::Error> {
    struct Distinct;
    impl<'de> Visitor<'de> for Distinct {
        type Value = Annotations;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("annotations")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
            let mut all = Annotations::new();
            while let Some((name, text)) = map.next_entry::<String, String>()? {
                if all.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("the annotation {:?} is there twice", excerpt(&name))));
                }
                all.insert(name, text);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_map(Distinct)
}

/// Where a blob or a manifest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Of what a list of references names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "distinct")]
    pub annotations: Annotations,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            annotations: Annotations::new(),
            platform: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "distinct")]
    pub annotations: Annotations,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Annotations::is_empty", deserialize_with = "distinct")]
    pub annotations: Annotations,
}

/// The configuration of an artifact of WebAssembly, as it is written here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WasmConfig {
    pub created: String,
    pub architecture: String,
    pub os: String,
    pub layer_digests: Vec<Digest>,
    pub component: Option<Component>,
}

/// The interfaces of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Component {
    pub exports: Vec<String>,
    pub imports: Vec<String>,
    pub target: Option<String>,
}

/// The configuration of a container's image, of which nothing runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageConfig {
    #[serde(flatten)]
    pub platform: Platform,
    pub config: BTreeMap<String, String>,
    pub rootfs: RootFs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub diff_ids: Vec<Digest>,
}

/// What a registry has by a name.
#[derive(Debug)]
pub enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
}

impl Document {
    /// By its own media type, else by that of the answer.
    ///
    /// # Errors
    /// If it is neither.
    pub fn read(bytes: &[u8], content_type: &str) -> Result<Document, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kind {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: Option<String>,
            manifests: Option<IgnoredAny>,
            config: Option<IgnoredAny>,
            layers: Option<IgnoredAny>,
        }
        // What is quoted in them has any length.
        let said = |error: serde_json::Error| excerpt(error);
        let kind: Kind = serde_json::from_slice(bytes).map_err(said)?;
        if kind.schema_version != 2 {
            return Err(format!("schemaVersion is {}, not 2", kind.schema_version));
        }
        // Else the same digest, and a signature of it, would stand for two things, by what a registry calls it (CVE-2021-41190).
        if kind.manifests.is_some() && (kind.config.is_some() || kind.layers.is_some()) {
            return Err("it is a manifest and an index in one".to_owned());
        }
        let content_type = content_type.split(';').next().unwrap_or_default().trim();
        match kind.media_type.as_deref().unwrap_or(content_type) {
            MANIFEST | DOCKER_MANIFEST => Ok(Document::Manifest(serde_json::from_slice(bytes).map_err(said)?)),
            INDEX | DOCKER_INDEX => Ok(Document::Index(serde_json::from_slice(bytes).map_err(said)?)),
            other => Err(format!("its media type is {:?}", excerpt(other))),
        }
    }
}

/// What somebody has made whose configuration is of `media_type`.
pub fn kind_of(media_type: &str) -> Option<&'static str> {
    match media_type {
        IMAGE_CONFIG | DOCKER_CONFIG => {
            Some("an image for containers (volumes of Kubernetes take those, `wasmbox push --image` makes them)")
        }
        "application/vnd.cncf.helm.config.v1+json" => Some("a Helm chart"),
        "application/vnd.wasm.config.v1+json" => {
            Some("an artifact in the older format of wasm-to-oci; push the module anew")
        }
        _ => None,
    }
}
