//! Keys of `--key` and `WASMBOX_KEY`.

use std::process::{Command, Output};

use base64::{Engine, engine::general_purpose::STANDARD};
use wasmbox_tests::{
    registry::FakeRegistry,
    signatures::{Payload, Signer},
};

use super::{Workplace, at, good, module, refused, signatures::hello};

#[test]
fn any_one_of_several_keys_suffices() {
    let (ours, theirs, mut signed) = (Signer::new(), Signer::new(), hello());
    signed.payloads = vec![ours.payload(&signed.digest())];
    let (here, registry) = (Workplace::new(), FakeRegistry::new(move |asked| signed.answer(asked)));
    let reference = at(registry.address(), "hello");
    ours.write(&here.path().join("ours.pub"));
    theirs.write(&here.path().join("theirs.pub"));
    here.write("both.pub", [here.read("theirs.pub"), here.read("ours.pub")].concat());
    let run = |variable: Option<&str>, flags: &[&str]| {
        let mut command = here.command(&[&["pull", &reference, "--force"][..], flags].concat());
        if let Some(variable) = variable {
            command.env("WASMBOX_KEY", variable);
        }
        command.output().expect("it runs")
    };
    let by = |output: &Output, file: &str| assert!(good(output).contains(&format!("the key of {file}")), "{output:?}");
    by(&run(None, &["--key", "theirs.pub", "--key", "ours.pub"]), "ours.pub");
    by(&run(None, &["--key", "both.pub"]), "both.pub");
    by(&run(Some("ours.pub"), &[]), "ours.pub");
    by(&run(Some("theirs.pub:ours.pub"), &[]), "ours.pub");
    refused(&run(Some("theirs.pub"), &[]), &["not signed by a key of --key"]);
    // The flag counts, not the variable, either way.
    by(&run(Some("theirs.pub"), &["--key", "ours.pub"]), "ours.pub");
    refused(&run(Some("ours.pub"), &["--key", "theirs.pub"]), &["not signed by a key of --key"]);
    // A variable that is set to nothing is a mistake, and no permission.
    for nothing in ["", ":", "ours.pub:"] {
        refused(&run(Some(nothing), &[]), &["WASMBOX_KEY names no file"]);
    }
}

#[test]
fn what_is_no_key_is_refused() {
    let (here, registry) = (Workplace::new(), FakeRegistry::new(|asked| hello().answer(asked)));
    let signer = Signer::new();
    signer.write(&here.path().join("good.pub"));
    here.write("private", signer.private_key());
    here.write(
        "cosign.key",
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
    );
    here.write("certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    here.write("other", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
    here.write("hello.wasm", module());
    here.write("long", "x".repeat(100_000));
    for (file, part) in [
        ("missing", "No such file"),
        ("private", "it has a private key"),
        ("cosign.key", "it has a private key"),
        ("certificate", "it has a certificate"),
        ("other", "it has a key of another kind"),
        ("hello.wasm", "it has no public key"),
        ("long", "more than 65536 bytes"),
        ("home", "home"),
    ] {
        let flags = ["pull", "--key", "good.pub", "--key", file, &at(registry.address(), "other")];
        refused(&here.run(&flags), &[&format!("--key {file}: "), part, "ECDSA on P-256"]);
    }
    // Nobody was asked.
    assert!(registry.asked().is_empty());
    // What is signed afterwards cannot be checked before.
    let output = here.run(&["push", "hello.wasm", &at(registry.address(), "hello:1"), "--key", "good.pub"]);
    refused(&output, &["--key is for a function out of a registry", "cosign sign"]);
    refused(&here.run(&["push", "hello.wasm", "--key", "good.pub"]), &["--key is for a registry"]);
}

/// Keys and signatures of another implementation.
#[test]
fn openssl_makes_keys_and_signatures_too() {
    let (here, mut signed) = (Workplace::new(), hello());
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(here.path()).output();
        good(&output.expect("Debian's package openssl"));
    };
    let key = |kind: &[&str]| {
        openssl(&[&["genpkey", "-out", "key.pem", "-algorithm"][..], kind].concat());
        openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"]);
    };
    key(&["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let content = Signer::new().payload(&signed.digest()).content;
    here.write("payload", &content);
    openssl(&["dgst", "-sha256", "-sign", "key.pem", "-out", "signature", "payload"]);
    signed.payloads = vec![Payload { content, signature: Some(STANDARD.encode(here.read("signature"))) }];
    let registry = FakeRegistry::new(move |asked| signed.answer(asked));
    let said = good(&here.run(&["pull", "--key", "key.pub", &at(registry.address(), "hello")]));
    assert!(said.contains("signed by the key of key.pub"), "{said}");
    // Others are named before anybody is asked.
    for kind in [&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..], &["ED25519"], &["RSA"]] {
        key(kind);
        refused(
            &here.run(&["pull", "--key", "key.pub", "oci://127.0.0.1:1/other"]),
            &["key.pub: it has a key of another kind"],
        );
    }
}
