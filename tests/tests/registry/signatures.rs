//! What is not signed by a key of `--key` is not taken: nothing of it is fetched, written or sent.

use std::{io::ErrorKind, net::TcpListener, process::Output};

use serde_json::json;
use wasmbox_tests::{
    WasmBox,
    registry::{Asked, Documents, FakeRegistry, Reply, digest},
    signatures::{INDEX, Listing, MANIFEST, Signed, Signer},
};

use super::{Workplace, at, good, module, refused};

pub fn hello() -> Signed {
    Signed::of(Documents::of(&module()))
}

/// Which files, registry and command there were.
pub struct Pulled {
    pub here: Workplace,
    pub registry: FakeRegistry,
    pub output: Output,
}

/// Fetches `team/hello:1` with the key of `signer`.
pub fn pull(signer: &Signer, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Pulled {
    let (here, registry) = (Workplace::new(), FakeRegistry::new(answer));
    signer.write(&here.path().join("cosign.pub"));
    let output = here.run(&["pull", "--key", "cosign.pub", &at(registry.address(), "team/hello:1")]);
    Pulled { here, registry, output }
}

pub fn asked_for(registry: &FakeRegistry, part: &str) -> usize {
    registry.asked().iter().filter(|asked| asked.path.contains(part)).count()
}

#[track_caller]
pub fn taken(signer: &Signer, signed: Signed) {
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
    let alone = |signed, parts: &[&str]| {
        in_vain(&signer, signed, &[&["not signed by a key of --key", "Of its signatures 1: 1 "][..], parts].concat());
    };
    let simple = |payload, parts: &[&str]| alone(Signed { payloads: vec![payload], ..hello() }, parts);
    let bundle = |bundle, parts: &[&str]| alone(Signed { bundles: vec![bundle], ..hello() }, parts);
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
