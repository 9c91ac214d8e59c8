//! What a registry says of signatures, and of what is signed, is not believed.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use wasmbox_tests::{
    registry::{Asked, Documents, Flow, Reply, digest},
    signatures::{INDEX, Signer},
};

use super::{
    good, module, refused,
    signatures::{asked_for, hello, pull, taken},
};

/// One that says other things of signatures than honest ones do.
#[test]
fn no_registry_is_believed() {
    let signer = Signer::new();
    let with = |part: &'static str, reply: fn() -> Reply, parts: &[&str]| {
        let mut signed = hello();
        signed.payloads = vec![signer.payload(&signed.digest())];
        let payload = digest(&signed.payloads[0].content);
        let answer = move |asked: &Asked| {
            let is_meant = asked.path.ends_with(if part == "payload" { &payload } else { part });
            if is_meant { reply() } else { signed.answer(asked) }
        };
        let said = pull(&signer, answer);
        refused(&said.output, parts);
        assert_eq!(
            (said.here.names(), asked_for(&said.registry, &digest(module()))),
            (vec!["cosign.pub".to_owned()], 0)
        );
    };
    with("payload", || Reply::of(200, "another"), &["a signature", "ends after 7 of"]);
    with("payload", || Reply::flow(Flow::Endless), &["a signature of more than"]);
    with("payload", || Reply::of(200, vec![b'x'; 253]), &["127.0.0.1"]);
    with("payload", || Reply::of(404, ""), &["not found: a signature"]);
    with(".sig", || Reply::flow(Flow::Endless), &["a manifest of more than 4.00 MiB"]);
    with(".sig", || Reply::of(200, "[".repeat(1 << 20)), &["the signatures cannot be read"]);
    with(".sig", || Reply::of(401, ""), &["the signatures", "not authorised"]);
    with(".sig", || Reply::of(500, ""), &["answers 500"]);
    let index = || {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
        Reply::of(200, index.to_string())
    };
    with(".sig", index, &["not signed by a key", "unreadable: an index"]);
    with(".sig", || Reply::of(404, ""), &["not signed"]);
}

/// Each of these is one of several, of which another is right.
#[test]
fn what_is_broken_hides_nothing() {
    let signer = Signer::new();
    let digest_of_ours = hello().digest();
    let with = |part: String, reply: fn() -> Reply| {
        let mut signed = hello();
        signed.bundles = vec![signer.bundle(&digest_of_ours), signer.bundle(&digest_of_ours)];
        // Else both would have one digest.
        signed.bundles[1].push(b' ');
        let answer = move |asked: &Asked| match asked.path.ends_with(&part) {
            true => reply(),
            false => signed.answer(asked),
        };
        let said = pull(&signer, answer);
        good(&said.output);
        assert_eq!(said.here.read("hello.wasm"), module());
    };
    let mut last = signer.bundle(&digest_of_ours);
    last.push(b' ');
    for bundle in [digest(&last), hello().artifact_digest(&last)] {
        with(bundle.clone(), || Reply::of(404, ""));
        with(bundle.clone(), || Reply::of(200, "{"));
        with(bundle, || Reply::of(200, vec![b' '; 300 << 10]));
    }
    for reply in [
        || Reply::of(200, json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string()),
        || Reply::of(200, "{"),
    ] {
        with(".sig".to_owned(), reply);
    }
    // Attestations say what they are, and there may be any number of them.
    let mut signed = hello();
    signed.attestations = (0..1000).map(|day| format!("{{\"day\":{day}}}").into_bytes()).collect();
    signed.bundles = vec![signer.bundle(&digest_of_ours)];
    taken(&signer, signed);
}

/// What it says at second sight does not count: it is asked once by the tag, and then by digests.
#[test]
fn a_tag_that_moves_moves_nothing() {
    let (signer, mut signed) = (Signer::new(), hello());
    signed.documents.manifest["annotations"] = json!({"dev.wasmbox.settings": "args = ['ours']"});
    signed.payloads = vec![signer.payload(&signed.digest())];
    let mut evil = Documents::of(&wat::parse_str("(module (memory 1))").expect("a module"));
    evil.manifest["annotations"] = json!({"dev.wasmbox.settings": "args = ['evil']"});
    let was_asked = AtomicBool::new(false);
    let said = pull(&signer, move |asked| {
        let is_first = asked.path.ends_with("/manifests/1") && !was_asked.swap(true, Ordering::SeqCst);
        match signed.answer(asked) {
            reply if is_first || reply.status != 200 || !asked.path.ends_with("/manifests/1") => reply,
            _ => evil.answer(asked),
        }
    });
    good(&said.output);
    assert_eq!((said.here.read("hello.wasm"), said.here.read("hello.toml")), (module(), b"args = ['ours']".to_vec()));
    assert_eq!(asked_for(&said.registry, "/manifests/1"), 1);
    // The other way round: evil comes first, and what is signed is another.
    let (mut signed, changed) = (hello(), |asked: &Asked, mut documents: Documents| {
        documents.manifest["annotations"] = json!({"dev.wasmbox.settings": "args = ['evil']"});
        documents.answer(asked)
    });
    signed.payloads = vec![signer.payload(&signed.digest())];
    let said = pull(&signer, move |asked| match asked.path.ends_with("/manifests/1") {
        true => changed(asked, Documents::of(&module())),
        false => signed.answer(asked),
    });
    refused(&said.output, &["not signed"]);
    assert_eq!(said.here.names(), ["cosign.pub"]);
    // The manifest is right, and what it names is not what comes.
    let mut signed = hello();
    signed.payloads = vec![signer.payload(&signed.digest())];
    let said = pull(&signer, move |asked| {
        if asked.path.ends_with(&digest(module())) {
            Reply::of(200, vec![0; module().len()])
        } else {
            signed.answer(asked)
        }
    });
    refused(&said.output, &["the module", "it is not kept"]);
    assert_eq!(said.here.names(), ["cosign.pub"]);
}

/// What is signed by its digest must mean one thing.
#[test]
fn a_signed_manifest_means_one_thing() {
    let signer = Signer::new();
    for (text, part) in [
        (
            r#""annotations":{"dev.wasmbox.settings":"args = ['a']","dev.wasmbox.settings":"args = ['b']"},"#,
            "is there twice",
        ),
        (r#""layers":[],"#, "duplicate field"),
        (r#""manifests":[],"#, "a manifest and an index in one"),
    ] {
        let manifest =
            String::from_utf8(hello().documents.manifest()).expect("text").replacen('{', &format!("{{{text}"), 1);
        let (payload, sig) =
            (signer.payload(&digest(&manifest)), format!("{}.sig", digest(&manifest).replace(':', "-")));
        let mut signatures = hello();
        signatures.payloads = vec![payload];
        let said = pull(&signer, move |asked| match asked.path.rsplit('/').next() {
            Some("1") => Reply::of(200, manifest.clone()),
            Some(name) if name == sig => {
                let own = format!("/manifests/{}.sig", signatures.digest().replace(':', "-"));
                signatures.answer(&Asked { path: own, ..asked.clone() })
            }
            _ => signatures.answer(asked),
        });
        refused(&said.output, &["the manifest cannot be read", part]);
    }
}
