//! An image whose only layer has functions in its root: what Kubernetes mounts as a volume. Nothing in it runs.
//!
//! containerd unpacks layers of images alone, and only for its own platform: so there is one manifest for each architecture that boxes run on, and
//! all of them have the same layer, since functions are the same everywhere.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    artifact::json,
    digest::{Digest, Hasher},
    document::{
        Annotations, Descriptor, IMAGE_CONFIG, IMAGE_LAYER, INDEX, ImageConfig, Index, MANIFEST, Manifest, Platform,
        RootFs,
    },
};

const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
const BLOCK: usize = 512;
/// What the name's field of a header holds.
const LONGEST_NAME: usize = 100;

/// A layer, as the pieces of a tar archive.
pub struct Layer {
    pub pieces: Vec<Bytes>,
    pub digest: Digest,
    pub size: u64,
}

/// What is pushed beside the layer: configurations and manifests of each architecture, and the index of all.
pub struct Image {
    pub configs: Vec<Bytes>,
    pub manifests: Vec<Bytes>,
    pub index: Bytes,
}

impl Layer {
    /// Of files with their names, which are no paths. The same files give the same bytes.
    pub fn new(files: &[(String, Bytes)]) -> Layer {
        let mut pieces = Vec::new();
        let mut pad = |bytes: Bytes| {
            let rest = bytes.len().next_multiple_of(BLOCK) - bytes.len();
            pieces.push(bytes);
            pieces.push(Bytes::from(vec![0; rest]));
        };
        for (name, content) in files {
            if name.len() > LONGEST_NAME {
                let record = extended(name);
                pad(header("pax", record.len(), b'x'));
                pad(record);
            }
            pad(header(name, content.len(), b'0'));
            pad(content.clone());
        }
        pieces.push(Bytes::from(vec![0; 2 * BLOCK]));
        pieces.retain(|piece| !piece.is_empty());
        let mut hasher = Hasher::default();
        pieces.iter().for_each(|piece| hasher.update(piece));
        Layer { digest: hasher.finish(), size: pieces.iter().map(|piece| piece.len() as u64).sum(), pieces }
    }
}

/// A header of POSIX.1-1988 (ustar): of a file that everybody may read, without owner and time.
fn header(name: &str, size: usize, kind: u8) -> Bytes {
    let mut block = [0; BLOCK];
    let mut put = |place: usize, text: &[u8]| block[place..place + text.len()].copy_from_slice(text);
    put(0, &name.as_bytes()[..name.len().min(LONGEST_NAME)]);
    put(100, b"0000444\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    // The sum is computed with spaces in its place.
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Bytes::copy_from_slice(&block)
}

/// The record of an extended header (pax) with a name that is too long for the header's field: its length counts its own digits.
fn extended(name: &str) -> Bytes {
    let rest = format!(" path={name}\n");
    let mut length = rest.len();
    while rest.len() + length.to_string().len() != length {
        length = rest.len() + length.to_string().len();
    }
    Bytes::from(format!("{length}{rest}"))
}

impl Image {
    /// # Errors
    /// In words. There are no such documents.
    pub fn new(layer: &Layer) -> Result<Image, String> {
        let descriptor = Descriptor {
            media_type: IMAGE_LAYER.to_owned(),
            digest: layer.digest,
            size: layer.size,
            artifact_type: None,
            annotations: Annotations::new(),
            platform: None,
        };
        let (mut configs, mut manifests, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for architecture in ARCHITECTURES {
            let platform = Platform { architecture: architecture.to_owned(), os: "linux".to_owned() };
            let config = json(&ImageConfig {
                platform: platform.clone(),
                config: BTreeMap::new(),
                rootfs: RootFs { kind: "layers", diff_ids: vec![layer.digest] },
            })?;
            let manifest = json(&Manifest {
                schema_version: 2,
                media_type: MANIFEST.to_owned(),
                artifact_type: None,
                config: Descriptor::of(IMAGE_CONFIG, &config),
                layers: vec![descriptor.clone()],
                annotations: Annotations::new(),
            })?;
            entries.push(Descriptor { platform: Some(platform), ..Descriptor::of(MANIFEST, &manifest) });
            configs.push(config);
            manifests.push(manifest);
        }
        let index = json(&Index {
            schema_version: 2,
            media_type: INDEX.to_owned(),
            manifests: entries,
            annotations: Annotations::new(),
        })?;
        Ok(Image { configs, manifests, index })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let long = format!("{}.wasm", "n".repeat(128));
        let files = [("a.wasm", &b"\0asm"[..]), ("a.toml", b""), (&long, &[7; 1024])];
        let files = files.map(|(name, content)| (name.to_owned(), Bytes::copy_from_slice(content)));
        let layer = Layer::new(&files);
        assert_eq!(layer.size % BLOCK as u64, 0);
        assert_eq!(layer.digest, Digest::of(&layer.pieces.concat()));
        let mut tar = Command::new("tar")
            .args(["tv", "--full-time", "--utc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&layer.pieces.concat()).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        let listed = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = [
            ["-r--r--r--", "0/0", "4", "a.wasm"],
            ["-r--r--r--", "0/0", "0", "a.toml"],
            ["-r--r--r--", "0/0", "1024", &long],
        ];
        for (line, [mode, owner, size, name]) in lines.iter().zip(expected) {
            assert_eq!((line[0], line[1], line[2], line[3], line[5]), (mode, owner, size, "1970-01-01", name));
        }
        assert_eq!(lines.len(), 3);
    }
}
