//! Sigstore's bundles (version 0.3), which cosign 3 makes: an envelope (DSSE) around a statement (in-toto) about the digest. A manifest that refers to what was
//! signed has it as its layer.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{
    key::{Keys, PublicKey},
    refusal::Refusal,
};
use crate::{excerpt::excerpt, registry::digest::Digest};

/// Of the layer, and of the artifact that has it.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A bundle has some thousand bytes, with what logs say of it (`cosign sign --tlog-upload`).
pub const LARGEST: u64 = 256 << 10;
/// The annotation by which a list tells what a bundle is about.
pub const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
const STATEMENT: &str = "application/vnd.in-toto+json";
const STATEMENT_VERSION: &str = "https://in-toto.io/Statement/v1";
/// What is said of the subject: that its signer stands for it. Others are about tests, materials or faults of it.
pub const PURPOSE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What counts of a bundle. A key that is there twice is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    version: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

/// By algorithms, of which one counts.
#[derive(Deserialize)]
struct Digests {
    sha256: String,
}

/// What is signed of an envelope (DSSE's pre-authentication encoding): its type and its payload, each with its length.
fn signed(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    text.extend_from_slice(payload);
    text
}

/// Who has signed `digest` by this bundle.
///
/// # Errors
/// [`Refusal`]
pub fn signer<'keys>(bundle: &[u8], digest: Digest, keys: &'keys Keys) -> Result<&'keys PublicKey, Refusal> {
    let Bundle { media_type, dsse_envelope: envelope } = serde_json::from_slice(bundle).map_err(Refusal::unreadable)?;
    if media_type != BUNDLE {
        return Err(Refusal::unreadable("its media type is another"));
    }
    let [Signature { sig }] = envelope.signatures.as_slice() else {
        return Err(Refusal::unreadable("it has not one signature"));
    };
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| Refusal::Encoding);
    let (payload, signature) = (decode(&envelope.payload)?, decode(sig)?);
    let key = keys.signer(&signed(&envelope.payload_type, &payload), &signature).ok_or(Refusal::Key)?;
    if envelope.payload_type != STATEMENT {
        return Err(Refusal::Purpose(excerpt(envelope.payload_type)));
    }
    let statement: Statement = serde_json::from_slice(&payload).map_err(Refusal::unreadable)?;
    if statement.predicate_type != PURPOSE {
        return Err(Refusal::Purpose(excerpt(statement.predicate_type)));
    }
    if statement.version != STATEMENT_VERSION {
        return Err(Refusal::unreadable("its statement is of another version of in-toto"));
    }
    let mut other = Refusal::unreadable("its statement has no subject");
    for Subject { digest: Digests { sha256 } } in statement.subject {
        match format!("sha256:{sha256}").parse::<Digest>() {
            Ok(found) if found == digest => return Ok(key),
            Ok(found) => other = Refusal::Content(found),
            Err(error) => other = Refusal::unreadable(error),
        }
    }
    Err(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{super::key::pair::Pair, *};

    fn statement(digest: Digest) -> Value {
        let digits = digest.to_string().replace("sha256:", "");
        json!({"_type": STATEMENT_VERSION, "subject": [{"digest": {"sha256": digits}}], "predicateType": PURPOSE, "predicate": {}})
    }

    fn bundle(payload_type: &str, payload: &[u8], signature: &[u8]) -> Value {
        json!({
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": "x"}},
            "dsseEnvelope": {
                "payload": STANDARD.encode(payload), "payloadType": payload_type, "signatures": [{"sig": STANDARD.encode(signature)}],
            },
        })
    }

    fn check(bundle: &Value, digest: Digest, keys: &Keys) -> Result<(), Refusal> {
        signer(bundle.to_string().as_bytes(), digest, keys).map(drop)
    }

    #[test]
    fn the_encoding_is_that_of_its_protocol() {
        // The example of the specification.
        assert_eq!(
            signed("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn what_is_signed_must_be_this_and_for_this() {
        let (pair, digest, other) = (Pair::generate(), Digest::of(b"manifest"), Digest::of(b"other"));
        let keys = pair.keys();
        let made = |payload_type: &str, payload: &str| {
            bundle(payload_type, payload.as_bytes(), &pair.sign(&signed(payload_type, payload.as_bytes())))
        };
        let good = statement(digest);
        let said = |statement: &Value| check(&made(STATEMENT, &statement.to_string()), digest, &keys);
        let changed = |change: fn(&mut Value)| {
            let mut statement = good.clone();
            change(&mut statement);
            said(&statement)
        };
        assert_eq!(said(&good), Ok(()));
        assert_eq!(said(&statement(other)), Err(Refusal::Content(other)));
        let provenance = "https://slsa.dev/provenance/v1";
        assert_eq!(
            changed(|statement| statement["predicateType"] = "https://slsa.dev/provenance/v1".into()),
            Err(Refusal::Purpose(provenance.into()))
        );
        let unreadable = |result| assert!(matches!(result, Err(Refusal::Unreadable(_))), "{result:?}");
        unreadable(changed(|statement| statement["_type"] = "https://in-toto.io/Statement/v9".into()));
        unreadable(changed(|statement| statement["subject"] = json!([])));
        unreadable(changed(|statement| statement["subject"][0]["digest"]["sha256"] = "00".into()));
        unreadable(changed(|statement| statement["subject"][0]["digest"] = json!({"sha512": "00"})));
        // Of several one is this; what another reader would take of a key that is there twice does not matter.
        let (ours, theirs) = (good["subject"][0].to_string(), statement(other)["subject"][0].to_string());
        let text = good.to_string();
        assert_eq!(check(&made(STATEMENT, &text.replace(&ours, &format!("{theirs},{ours}"))), digest, &keys), Ok(()));
        let twice = text.replacen("\"subject\":", &format!("\"subject\":[{theirs}],\"subject\":"), 1);
        unreadable(check(&made(STATEMENT, &twice), digest, &keys));
        let twice = text.replacen("\"sha256\":", &format!("\"sha256\":\"{}\",\"sha256\":", "0".repeat(64)), 1);
        unreadable(check(&made(STATEMENT, &twice), digest, &keys));
        // The type is signed, too: a text that was signed as something else is no statement.
        assert_eq!(check(&made("text/plain", &text), digest, &keys), Err(Refusal::Purpose("text/plain".into())));
        let mut retyped = made("text/plain", &text);
        retyped["dsseEnvelope"]["payloadType"] = STATEMENT.into();
        assert_eq!(check(&retyped, digest, &keys), Err(Refusal::Key));
        assert_eq!(
            check(&bundle(STATEMENT, text.as_bytes(), &pair.sign(text.as_bytes())), digest, &keys),
            Err(Refusal::Key)
        );
        assert_eq!(check(&made(STATEMENT, &text), digest, &Pair::generate().keys()), Err(Refusal::Key));
        let bundled = |change: fn(&mut Value)| {
            let mut bundle = made(STATEMENT, &text);
            change(&mut bundle);
            check(&bundle, digest, &keys)
        };
        assert_eq!(bundled(|bundle| bundle["dsseEnvelope"]["payload"] = "!".into()), Err(Refusal::Encoding));
        unreadable(bundled(|bundle| {
            bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into()
        }));
        unreadable(bundled(|bundle| bundle["dsseEnvelope"]["signatures"] = json!([])));
        unreadable(bundled(|bundle| {
            let one = bundle["dsseEnvelope"]["signatures"][0].clone();
            bundle["dsseEnvelope"]["signatures"] = json!([one, one]);
        }));
        unreadable(bundled(|bundle| *bundle = json!([])));
    }

    proptest! {
        #[test]
        fn no_byte_can_be_changed(place in any::<prop::sample::Index>(), change in 1_u8.., in_payload: bool) {
            let (pair, digest) = (Pair::generate(), Digest::of(b"manifest"));
            let mut payload = statement(digest).to_string().into_bytes();
            let mut signature = pair.sign(&signed(STATEMENT, &payload));
            let changed = if in_payload { &mut payload } else { &mut signature };
            let place = place.index(changed.len());
            changed[place] ^= change;
            prop_assert_eq!(check(&bundle(STATEMENT, &payload, &signature), digest, &pair.keys()), Err(Refusal::Key));
        }
    }
}
