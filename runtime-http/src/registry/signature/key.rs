//! Public keys, in PEM: of ECDSA on P-256 with SHA-256, which cosign makes.
//!
//! By keys of Ed25519, which it can import, cosign signs with Ed25519ph (RFC 8032), and `ring` has none of that.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::pem::{self, SectionKind};

use crate::registry::RegistryError;

const LARGEST_FILE: u64 = 64 << 10;

/// What comes before the point in a SubjectPublicKeyInfo (RFC 5480): id-ecPublicKey, and secp256r1. DER has one form only for each key, so it is always the same.
const HEAD: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
/// Bytes of a point that is not compressed.
const POINT: usize = 65;

/// A key that may have signed a function.
#[derive(Debug)]
pub struct PublicKey {
    key: UnparsedPublicKey<Vec<u8>>,
    /// The file that it is from.
    pub path: PathBuf,
}

/// Keys of which any one suffices.
#[derive(Debug)]
pub struct Keys(Vec<PublicKey>);

impl PublicKey {
    /// Of a SubjectPublicKeyInfo in DER. `None` if it is none, or of another kind.
    fn of(der: &[u8], path: &Path) -> Option<PublicKey> {
        let point = der.strip_prefix(HEAD).filter(|point| point.len() == POINT)?;
        Some(PublicKey { key: UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.to_vec()), path: path.to_owned() })
    }
}

impl Keys {
    /// All public keys of these files, of which each has one at least.
    ///
    /// # Errors
    /// [`RegistryError::Key`]
    pub fn read(paths: &[PathBuf]) -> Result<Keys, RegistryError> {
        let mut keys = Vec::new();
        for path in paths {
            let wrong = |reason| RegistryError::Key { path: path.clone(), reason };
            let text = content(path).map_err(|error| wrong(error.to_string()))?;
            keys.append(&mut public_keys(&text, path).map_err(wrong)?);
        }
        Ok(Keys(keys))
    }

    /// The key by which `message` was signed.
    pub fn signer(&self, message: &[u8], signature: &[u8]) -> Option<&PublicKey> {
        self.0.iter().find(|one| one.key.verify(message, signature).is_ok())
    }
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other(format!("it has more than {LARGEST_FILE} bytes")));
    }
    Ok(text)
}

fn public_keys(text: &[u8], path: &Path) -> Result<Vec<PublicKey>, String> {
    let (mut keys, mut rest) = (Vec::new(), text);
    while let Some((section, der)) = pem::from_buf(&mut rest).map_err(|error| format!("it is no PEM: {error}"))? {
        match section {
            SectionKind::PublicKey => keys.push(PublicKey::of(&der, path).ok_or("it has a key of another kind")?),
            SectionKind::Certificate => return Err("it has a certificate, and certificates are not looked at".into()),
            SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey => return Err(secret()),
            _ => return Err("it has something else than a public key".into()),
        }
    }
    // What cosign signs with is in a section of its own kind.
    if text.windows(SECRET.len()).any(|part| part == SECRET) {
        return Err(secret());
    }
    if keys.is_empty() { Err("it has no public key".into()) } else { Ok(keys) }
}

const SECRET: &[u8] = b" PRIVATE KEY-----";

fn secret() -> String {
    "it has a private key, which is for nobody but who signs".into()
}

/// A key pair of a test's own.
#[cfg(test)]
pub mod pair {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };

    use super::*;

    pub struct Pair(EcdsaKeyPair);

    impl Pair {
        pub fn generate() -> Pair {
            let random = SystemRandom::new();
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            Pair(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap())
        }

        pub fn der(&self) -> Vec<u8> {
            [HEAD, self.0.public_key().as_ref()].concat()
        }

        pub fn keys(&self) -> Keys {
            Keys(vec![PublicKey::of(&self.der(), Path::new("cosign.pub")).unwrap()])
        }

        pub fn sign(&self, message: &[u8]) -> Vec<u8> {
            self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    fn read(text: &str) -> Result<usize, String> {
        public_keys(text.as_bytes(), Path::new("key")).map(|keys| keys.len())
    }

    fn pem(kind: &str, der: &[u8]) -> String {
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
    }

    #[test]
    fn keys_have_one_form() {
        let good = pair::Pair::generate().der();
        assert_eq!(read(&pem("PUBLIC KEY", &good)), Ok(1));
        assert_eq!(read(&format!("a comment\n{}{}", pem("PUBLIC KEY", &good), pem("PUBLIC KEY", &good))), Ok(2));
        // RFC 8410, section 10.1.
        let ed = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &[7; 32]].concat();
        let changed = |place: usize| {
            let mut der = good.clone();
            der[place] ^= 1;
            der
        };
        for wrong in
            [&good[..90], &[&good[..], &[0]].concat(), &ed, &changed(1), &changed(22), &changed(25), b"", &[0; 91]]
        {
            assert!(read(&pem("PUBLIC KEY", wrong)).unwrap_err().contains("another kind"), "{wrong:?}");
        }
        for (kind, part) in [
            ("PRIVATE KEY", "private"),
            ("EC PRIVATE KEY", "private"),
            ("ENCRYPTED SIGSTORE PRIVATE KEY", "private"),
            ("CERTIFICATE", "certificate"),
            ("X509 CRL", "something else"),
            ("PGP PUBLIC KEY BLOCK", "no public key"),
        ] {
            assert!(read(&pem(kind, &good)).unwrap_err().contains(part), "{kind}");
        }
        for wrong in
            ["", "hello", "-----BEGIN PUBLIC KEY-----\n", "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
