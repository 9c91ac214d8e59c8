//! What a component has beside its request, and which components are handlers.

use wasmbox_tests::{WasmBox, component::http_guest, guest};

#[test]
fn the_world_outside_the_request() {
    let server = WasmBox::launch()
        .function("http.wasm", http_guest())
        .function("set.wasm", http_guest())
        .function("set.toml", "env = { GREETING = 'hi' }\nargs = ['--fixed']")
        .env("SECRET", "of the server")
        .start();
    let answer = server.get("/http/streams").ok();
    assert_eq!(answer.text(), "Ok(0)", "there is no standard input but an empty one");
    server.logged(&["guest", "function=http", "to stdout"]);
    server.logged(&["guest", "function=http", "to stderr"]);
    assert_eq!(server.get("/http/environment").ok().text(), "");
    assert_eq!(server.get("/set/environment").ok().text(), "GREETING=hi\narg --fixed\n");
    assert!(server.get("/http/directory").ok().text().starts_with("no directory"));
    let port = server.address().port();
    let socket = server.get(&format!("/http/socket?{port}")).ok();
    assert!(socket.text().starts_with("no connection"), "{}", socket.text());
}

#[test]
fn components_of_other_kinds() {
    let server = WasmBox::launch()
        .example("rust-http.wasm")
        .function("neither.wat", "(component)")
        .function("core.wat", guest::hello())
        .start();
    assert_eq!(server.get("/rust-http/").ok().text(), "hello\n");
    assert_eq!(server.post("/rust-http/", "body").ok().text(), "body");
    let request = server.get("/rust-http/request").ok();
    assert!(request.text().starts_with("GET /rust-http/request\n"), "{}", request.text());
    server.get("/neither").problem(422, "module-invalid");
    let listing = server.admin("/functions").ok();
    let listing: serde_json::Value = serde_json::from_slice(&listing.body).expect("the listing is JSON");
    assert_eq!(listing[1]["kind"], "http-component", "{listing}");
}
