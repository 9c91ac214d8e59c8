//! What is not signed by a key of `--key` is not taken: nothing of it is fetched, written or sent.

use std::{
    io::ErrorKind,
    net::TcpListener,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::json;
use wasmbox_tests::{
    WasmBox,
    registry::{Asked, Documents, FakeRegistry, Flow, Reply, digest},
    signatures::{INDEX, Listing, MANIFEST, Signed, Signer},
};

use super::{Workplace, at, good, module, refused};

pub fn hello() -> Signed {
    Signed::of(Documents::of(&module()))
}

/// Which files, registry and command there were.
struct Pulled {
    here: Workplace,
    registry: FakeRegistry,
    output: Output,
}

/// Fetches `team/hello:1` with the key of `signer`.
fn pull(signer: &Signer, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Pulled {
    let (here, registry) = (Workplace::new(), FakeRegistry::new(answer));
    signer.write(&here.path().join("cosign.pub"));
    let output = here.run(&["pull", "--key", "cosign.pub", &at(registry.address(), "team/hello:1")]);
    Pulled { here, registry, output }
}

fn asked_for(registry: &FakeRegistry, part: &str) -> usize {
    registry.asked().iter().filter(|asked| asked.path.contains(part)).count()
}

#[track_caller]
fn taken(signer: &Signer, signed: Signed) {
    let said = pull(signer, move |asked| signed.answer(asked));
    assert!(good(&said.output).contains("signed by the key of cosign.pub"), "{:?}", said.output);
    assert_eq!(said.here.read("hello.wasm"), module());
}

/// Neither the module nor its configuration is asked for, and nothing is left.
#[track_caller]
fn in_vain(signer: &Signer, signed: Signed, parts: &[&str]) {
    let config = digest(signed.documents.config.to_string());
    let said = pull(signer, move |asked| signed.answer(asked));
    refused(&said.output, parts);
    assert_eq!(said.here.names(), ["cosign.pub"]);
    assert_eq!((asked_for(&said.registry, &digest(module())), asked_for(&said.registry, &config)), (0, 0));
}

#[test]
fn what_is_signed_is_taken() {
    let (signer, mut signed) = (Signer::new(), hello());
    signed.payloads = vec![signer.payload(&signed.digest())];
    taken(&signer, signed);
    for listing in [Listing::Api, Listing::Tag(404), Listing::Tag(400), Listing::Tag(200)] {
        let mut signed = hello();
        signed.bundles = vec![signer.bundle(&signed.digest())];
        signed.listing = listing;
        taken(&signer, signed);
    }
    // One of them is right.
    let mut signed = hello();
    let (ours, other) = (signed.digest(), digest("other"));
    let mut broken = signer.payload(&ours);
    broken.signature = None;
    signed.payloads = vec![Signer::new().payload(&ours), broken, signer.payload(&ours), signer.payload(&other)];
    taken(&signer, signed);
    let mut signed = hello();
    signed.payloads = vec![Signer::new().payload(&ours)];
    let provenance = signer.bundle_about(&ours, "https://slsa.dev/provenance/v1");
    signed.bundles =
        vec![provenance, b"{}".to_vec(), vec![b' '; 300 << 10], signer.bundle(&ours), signer.bundle(&other)];
    taken(&signer, signed);
}

#[test]
fn what_is_not_signed_is_refused() {
    let signer = Signer::new();
    let tag = format!("{}.sig", hello().digest().replace(':', "-"));
    let command = format!("team/hello@{}", hello().digest());
    in_vain(&signer, hello(), &["team/hello:1: not signed", &tag, "cosign sign --key cosign.key 127.0.0.1:", &command]);
    let mut signed = hello();
    signed.listing = Listing::Tag(404);
    in_vain(&signer, signed, &["team/hello:1: not signed"]);
    // Whoever asks for nothing gets it.
    let (here, registry) = (Workplace::new(), FakeRegistry::new(|asked| hello().answer(asked)));
    good(&here.run(&["pull", &at(registry.address(), "hello")]));
}

#[test]
fn signatures_of_others_do_not_count() {
    let (signer, stranger, ours) = (Signer::new(), Signer::new(), hello().digest());
    let simple = |payload, parts: &[&str]| {
        let mut signed = hello();
        signed.payloads = vec![payload];
        in_vain(&signer, signed, &[&["not signed by a key of --key", "Of its signatures 1: 1 "][..], parts].concat());
    };
    let other = digest("other");
    simple(stranger.payload(&ours), &["made by none of these keys"]);
    simple(signer.payload(&other), &["of another content", &other]);
    // Altered: what it says is ours, but what was signed was another.
    let mut altered = signer.payload(&other);
    altered.content = signer.payload(&ours).content;
    simple(altered, &["made by none of these keys, or altered"]);
    let mut none = signer.payload(&ours);
    none.signature = Some("none".repeat(3) + "!");
    simple(none, &["without a signature in base64"]);
    let text = String::from_utf8(signer.payload(&ours).content).expect("text");
    simple(
        signer.payload_of(text.replace("cosign container", "a")),
        &["not made to sign an image", "a image signature"],
    );
    simple(
        signer.payload_of(text.replacen(
            "{\"docker-m",
            &format!("{{\"docker-manifest-digest\":\"{other}\",\"docker-m"),
            1,
        )),
        &["unreadable"],
    );
    simple(signer.payload_of(" ".repeat(1 << 16) + &text), &["larger than 64.00 KiB"]);
    let bundle = |bundle, parts: &[&str]| {
        let mut signed = hello();
        signed.bundles = vec![bundle];
        in_vain(&signer, signed, &[&["not signed by a key of --key", "Of its signatures 1: 1 "][..], parts].concat());
    };
    bundle(stranger.bundle(&ours), &["made by none of these keys"]);
    bundle(signer.bundle(&other), &["of another content", &other]);
    // Its signer says something of it, which may be that it is bad.
    bundle(signer.bundle_about(&ours, "https://in-toto.io/attestation/vulns/v0.1"), &["vulns"]);
    bundle(vec![b' '; 300 << 10], &["larger than 256.00 KiB"]);
    bundle(vec![b'['; 100 << 10], &["unreadable"]);
    // All of them are counted.
    let mut signed = hello();
    signed.payloads = vec![stranger.payload(&ours), signer.payload(&other)];
    signed.bundles = vec![stranger.bundle(&ours), Signer::new().bundle(&ours)];
    in_vain(&signer, signed, &["Of its signatures 4: 3 made by none of these keys, or altered; 1 of another content"]);
}

#[test]
fn few_of_many_signatures_are_looked_at() {
    let (signer, ours) = (Signer::new(), hello().digest());
    let stranger = Signer::new().payload(&ours);
    let mut signed = hello();
    signed.payloads = vec![stranger.clone(); 999];
    signed.payloads.push(signer.payload(&ours));
    taken(&signer, signed);
    let mut signed = hello();
    signed.payloads = vec![signer.payload(&ours)];
    signed.payloads.extend(vec![stranger; 999]);
    in_vain(&signer, signed, &["Of its signatures 64: 64 made by none", "936 more were not looked at"]);
    let mut signed = hello();
    signed.bundles = (0..1000).map(|place| format!("{{\"place\":{place}}}").into_bytes()).collect();
    let said = pull(&signer, move |asked| signed.answer(asked));
    refused(&said.output, &["unreadable", "936 more were not looked at"]);
    assert!(said.registry.asked().len() < 150);
    // What refers to it is of any kind, and the signature may be among the rest.
    let bill = json!({"mediaType": MANIFEST, "digest": hello().digest(), "size": hello().documents.manifest().len()});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": vec![bill; 1000]}).to_string();
    let said = pull(&signer, move |asked| {
        if asked.path.contains("/referrers/") {
            Reply::of(200, index.clone()).with("content-type", INDEX)
        } else {
            hello().answer(asked)
        }
    });
    refused(&said.output, &["Of its signatures 0; 936 more were not looked at"]);
}

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

#[test]
fn a_box_gets_what_is_signed_alone() {
    let (signer, mut signed) = (Signer::new(), hello());
    signed.documents.manifest["annotations"] = json!({"dev.wasmbox.settings": "args = ['ours']"});
    let mut unsigned = hello();
    unsigned.payloads = vec![Signer::new().payload(&unsigned.digest())];
    signed.bundles = vec![signer.bundle(&signed.digest())];
    let signed = FakeRegistry::new(move |asked| signed.answer(asked));
    let unsigned = FakeRegistry::new(move |asked| unsigned.answer(asked));
    let here = Workplace::new();
    signer.write(&here.path().join("cosign.pub"));
    here.write("token", "a-token-of-the-test-box\n");
    let push = |registry: &FakeRegistry, url: &str| {
        let reference = at(registry.address(), "hello:1");
        here.run(&["push", &reference, "--key", "cosign.pub", "--url", url, "--token-file", "token"])
    };
    // Nobody has so much as connected to the box.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    silent.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}", silent.local_addr().expect("it is bound"));
    refused(&push(&unsigned, &url), &["not signed by a key of --key"]);
    assert_eq!(silent.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    let server = WasmBox::launch().flag("--upload-token-file", here.path().join("token").display()).start();
    let said = good(&push(&signed, &format!("http://{}", server.admin_address())));
    assert!(said.starts_with("hello: created, with its settings, signed by the key of cosign.pub: "), "{said}");
    assert_eq!(server.get("/hello").ok().text(), "hello\0ours\0\n\n");
}
