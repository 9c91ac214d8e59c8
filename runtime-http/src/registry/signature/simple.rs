//! cosign's own format ("simple signing"): an image with a tag that is made of the digest. Each of its layers is a payload, which names the digest, and has the
//! signature of the payload's bytes in an annotation.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    key::{Keys, PublicKey},
    refusal::Refusal,
};
use crate::{excerpt::excerpt, registry::digest::Digest};

/// Of a layer.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// A payload has some hundred bytes, and what its signer has added (`cosign sign -a`).
pub const LARGEST: u64 = 64 << 10;
const PURPOSE: &str = "cosign container image signature";

/// Where the signatures of `digest` are.
pub fn tag(digest: Digest) -> String {
    format!("{}.sig", digest.to_string().replace(':', "-"))
}

/// What counts of a payload. A key that is there twice is an error.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    purpose: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// Who has signed `digest` by `signature`, which is base64, over this payload.
///
/// # Errors
/// [`Refusal`]
pub fn signer<'keys>(
    payload: &[u8],
    signature: &str,
    digest: Digest,
    keys: &'keys Keys,
) -> Result<&'keys PublicKey, Refusal> {
    let signature = STANDARD.decode(signature).map_err(|_| Refusal::Encoding)?;
    let key = keys.signer(payload, &signature).ok_or(Refusal::Key)?;
    let Payload { critical } = serde_json::from_slice(payload).map_err(Refusal::unreadable)?;
    if critical.purpose != PURPOSE {
        return Err(Refusal::Purpose(excerpt(critical.purpose)));
    }
    if critical.image.digest != digest {
        return Err(Refusal::Content(critical.image.digest));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::key::pair::Pair, *};

    fn payload(digest: &str, purpose: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.example/hello"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{purpose}"}},"optional":null}}"#
        )
    }

    #[test]
    fn what_is_signed_must_be_this_and_for_this() {
        let (pair, digest) = (Pair::generate(), Digest::of(b"manifest"));
        let keys = pair.keys();
        let signed = |payload: &str| {
            let signature = STANDARD.encode(pair.sign(payload.as_bytes()));
            signer(payload.as_bytes(), &signature, digest, &keys).map(drop)
        };
        let good = payload(&digest.to_string(), PURPOSE);
        assert_eq!(signed(&good), Ok(()));
        let other = Digest::of(b"other");
        assert_eq!(signed(&payload(&other.to_string(), PURPOSE)), Err(Refusal::Content(other)));
        assert_eq!(signed(&payload(&digest.to_string(), "x")), Err(Refusal::Purpose("x".into())));
        // Whatever another reader would take: a key that is there twice, and one of another case.
        let twice = |key: &str| good.replacen(&format!("\"{key}\":"), &format!("\"{key}\":{{}},\"{key}\":"), 1);
        let no = |text: &str| assert!(matches!(signed(text), Err(Refusal::Unreadable(_))), "{text}");
        no(&twice("critical"));
        no(&twice("image"));
        no(&good.replacen(
            "\"docker-manifest-digest\"",
            &format!("\"docker-manifest-digest\":\"{other}\",\"docker-manifest-digest\""),
            1,
        ));
        no(&good.replace("critical", "Critical"));
        no(&good.replace("sha256:", "SHA256:"));
        no(&format!("{good}{good}"));
        no("");
        // A signature of something else, none, and no base64.
        let sign = |message: &str| STANDARD.encode(pair.sign(message.as_bytes()));
        let check = |signature: &str| signer(good.as_bytes(), signature, digest, &keys).map(drop);
        assert_eq!(check(&sign("another")), Err(Refusal::Key));
        assert_eq!(check(""), Err(Refusal::Key));
        assert_eq!(check("!"), Err(Refusal::Encoding));
        assert_eq!(check(&format!("{}\n", sign(&good))), Err(Refusal::Encoding));
        let stranger = Pair::generate();
        assert_eq!(check(&STANDARD.encode(stranger.sign(good.as_bytes()))), Err(Refusal::Key));
    }

    proptest! {
        #[test]
        fn no_byte_can_be_changed(place in any::<prop::sample::Index>(), change in 1_u8.., in_payload: bool) {
            let (pair, digest) = (Pair::generate(), Digest::of(b"manifest"));
            let mut payload = payload(&digest.to_string(), PURPOSE).into_bytes();
            let mut signature = pair.sign(&payload);
            let changed = if in_payload { &mut payload } else { &mut signature };
            let place = place.index(changed.len());
            changed[place] ^= change;
            prop_assert_eq!(signer(&payload, &STANDARD.encode(&signature), digest, &pair.keys()).map(drop), Err(Refusal::Key));
        }
    }
}
