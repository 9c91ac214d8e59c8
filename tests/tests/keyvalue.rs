//! What functions keep by `wasi:keyvalue`: below a directory, and in a real Redis or Valkey.

use std::{fs, path::PathBuf, thread};

use wasmbox_tests::{
    RedisServer, WasmBox,
    component::{keyvalue_guest, p3_keyvalue_guest},
    patience::eventually,
    redis::Software,
    server::Launch,
};

/// Two functions of one component.
fn functions() -> Launch {
    WasmBox::launch().function("kv.wasm", keyvalue_guest()).function("other.wasm", keyvalue_guest())
}

fn directory(launch: &Launch) -> PathBuf {
    launch.directory().join("kept")
}

fn embedded() -> Launch {
    let launch = functions();
    let directory = directory(&launch);
    launch.flag("--keyvalue-dir", directory.display())
}

fn said(server: &WasmBox, what: &str) -> String {
    server.get(&format!("/{what}")).ok().text().to_owned()
}

/// What any place for values does.
fn values_are_kept(server: &WasmBox) {
    assert_eq!(said(server, "kv/get?a"), "none");
    assert_eq!(said(server, "kv/set?a,first"), "set");
    assert_eq!(said(server, "kv/get?a"), "\"first\"");
    assert_eq!(said(server, "kv/exists?a"), "true");
    // Nobody else's.
    assert_eq!(said(server, "other/get?a"), "none");
    assert_eq!(said(server, "other/exists?a"), "false");
    assert_eq!(said(server, "other/list"), "1 pages, 0 keys");
    assert_eq!(said(server, "other/set?a,second"), "set");
    assert_eq!(said(server, "other/delete?a"), "deleted");
    assert_eq!(said(server, "kv/get?a"), "\"first\"");
    // Several at once.
    assert_eq!(said(server, "kv/set-many?b=1,c=2,b=3,e="), "set");
    assert_eq!(said(server, "kv/get-many?c,d,b,e"), "c=\"2\" none b=\"3\" e=\"\"");
    assert_eq!(said(server, "kv/list"), "1 pages, 4 keys a b c e");
    assert_eq!(said(server, "kv/delete-many?c,d,e"), "deleted");
    assert_eq!(said(server, "kv/list"), "1 pages, 2 keys a b");
    // Numbers.
    assert_eq!(said(server, "kv/increment?n,3"), "3");
    assert_eq!(said(server, "kv/increment?n,18446744073709551612"), "18446744073709551615");
    assert!(said(server, "kv/increment?n,1").starts_with("error=the value is no number"));
    assert!(said(server, "kv/increment?a,1").starts_with("error=the value is no number"));
    assert_eq!(said(server, "kv/get?n"), "\"18446744073709551615\"");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| drop(said(server, "kv/increment?together,1"))));
        }
    });
    assert_eq!(said(server, "kv/get?together"), "\"80\"");
    // Pages.
    assert_eq!(said(server, "kv/set-many-of?600,10"), "set");
    assert!(said(server, "kv/list").starts_with("3 pages, 604 keys a b n of-000000 "));
    assert_eq!(
        said(server, "kv/cursor?7"),
        "error=the cursor is none of this bucket's last pages: list from the beginning"
    );
    // Bounds of keys, values and calls, and of what a call may read into the invocation's memory.
    assert_eq!(said(server, "kv/fill?large,524288"), "filled");
    assert_eq!(said(server, "kv/get?large"), "524288 bytes");
    assert!(said(server, "kv/fill?large,524289").contains("at most 524288 bytes, this one 524289"));
    let long = "k".repeat(1025);
    assert!(said(server, &format!("kv/set?{long},v")).contains("1 to 1024 bytes, this one 1025"));
    assert!(said(server, "kv/set?,v").contains("1 to 1024 bytes, this one 0"));
    assert!(said(server, "kv/get-many-of?a,1001").contains("at most 1000 keys, this one 1001"));
    let request = http::Request::get("/kv/get-many-of?large,1000").header("Memory-Request", "16Mi");
    assert!(server.call(request, "").ok().text().contains("no room for 524288 bytes more"));
    // There is one bucket.
    assert_eq!(said(server, "kv/open?default"), "opened");
    assert_eq!(said(server, "kv/open?other"), "error=no-such-store");
}

/// Of a box whose functions may keep a mebibyte.
fn the_quota_holds(server: &WasmBox) {
    let text = said(server, "kv/fill-many?100,100000");
    assert!(
        text.starts_with("10 filled, then ") && text.contains("1048576 bytes") && text.contains("--keyvalue-quota"),
        "{text}"
    );
    // It is each function's own; and what is too much as a whole is not kept in part.
    assert_eq!(said(server, "other/fill?a,500000"), "filled");
    assert!(said(server, "kv/set-many-of?10,10000").contains("1048576 bytes"));
    assert_eq!(said(server, "kv/exists?of-000000"), "false");
    // What is replaced or deleted makes room; each entry counts for 64 bytes, too.
    assert_eq!(said(server, "kv/fill?many-00000000,100000"), "filled");
    assert_eq!(said(server, "kv/delete-many?many-00000001,many-00000002"), "deleted");
    assert_eq!(said(server, "kv/fill?new,200000"), "filled");
    let text = said(server, "other/fill-many?100000,1000");
    let filled: u64 = text.split(' ').next().and_then(|count| count.parse().ok()).expect("a number");
    assert_eq!(filled, (1_048_576 - 500_000 - 1 - 64) / (64 + 13 + 1000), "{text}");
}

#[test]
fn values_are_kept_below_a_directory_until_the_next_start() {
    let server = embedded().start();
    values_are_kept(&server);
    let metrics = server.metrics();
    let count = |name: &str| metrics.sum(name, &["backend=\"embedded\""]);
    assert!(count("wasmbox_keyvalue_operations_total") > 100.0 && count("wasmbox_keyvalue_errors_total") >= 7.0);
    let launch = server.stop();
    let directory = directory(&launch);
    assert!(directory.join("kv.redb").is_file() && directory.join("other.redb").is_file());
    let server = launch.start();
    assert_eq!(said(&server, "kv/get?a"), "\"first\"");
    assert_eq!(said(&server, "kv/get?together"), "\"80\"");
    // What an operator removes while the box does not run is gone.
    let launch = server.stop();
    fs::remove_file(directory.join("kv.redb")).expect("the function's file");
    let server = launch.start();
    assert_eq!(said(&server, "kv/get?a"), "none");
}

/// Killed, it loses nothing that it has said to be kept.
#[test]
fn values_outlive_a_box_that_is_killed() {
    let mut server = embedded().start();
    for number in 0..20 {
        assert_eq!(said(&server, &format!("kv/set?k{number},v")), "set");
    }
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    let server = server.stop().start();
    assert!(said(&server, "kv/list").starts_with("1 pages, 20 keys "));
}

#[test]
fn a_function_has_a_quota() {
    the_quota_holds(&embedded().flag("--keyvalue-quota", "1Mi").start());
}

/// What is no database any more, or another box's, harms nobody else.
#[test]
fn a_database_that_cannot_be_opened_harms_its_function_alone() {
    let launch = embedded();
    let directory = directory(&launch);
    fs::create_dir(&directory).expect("a new directory");
    fs::write(directory.join("kv.redb"), vec![b'x'; 1 << 20]).expect("a file");
    let server = launch.start();
    let failed = "error=the store failed; the box's log says why";
    assert_eq!(said(&server, "kv/get?a"), failed);
    server.logged(&["WARN", "the store of functions' values fails", "kv.redb"]);
    assert_eq!(said(&server, "other/set?a,b"), "set");
    let second = functions().flag("--keyvalue-dir", directory.display()).start();
    assert_eq!(said(&second, "other/get?a"), failed);
    second.logged(&["WARN", "the store of functions' values fails", "other.redb"]);
    assert_eq!(said(&server, "other/get?a"), "\"b\"");
    let _directory = server.stop();
    assert_eq!(said(&second, "other/get?a"), "\"b\"", "it is free now");
}

/// The same store for components of WASI 0.3, whose tasks run beside each other.
#[test]
fn components_of_wasi_0_3_keep_values() {
    let server = embedded().function("p3.wasm", p3_keyvalue_guest()).start();
    assert_eq!(said(&server, "p3/set?a,first"), "set");
    assert_eq!(said(&server, "p3/get?a"), "Some(Ok(\"first\"))");
    assert_eq!(said(&server, "p3/get?b"), "None");
    assert_eq!(said(&server, "kv/get?a"), "none");
    assert_eq!(said(&server, "p3/count?n,20"), "20");
}

/// There are more functions than databases that are open at once.
#[test]
fn many_functions_keep_values() {
    let launch = (0..80).fold(embedded().flag("--memory-limit", "256Mi"), |launch, number| {
        launch.function(&format!("f{number}.wasm"), keyvalue_guest())
    });
    let server = launch.start();
    for round in ["1", "2"] {
        for number in 0..80 {
            assert_eq!(said(&server, &format!("f{number}/increment?n,1")), round);
        }
    }
    let descriptors = server.process().descriptors();
    assert!(descriptors < 300, "{descriptors}");
}

#[test]
fn without_a_place_the_flag_is_named() {
    let server = functions().start();
    server.get("/kv/get?a").problem(422, "module-invalid").names(&[
        "wasi:keyvalue",
        "--keyvalue-dir",
        "KEYVALUE_DIR",
        "--keyvalue-redis",
    ]);
    let server = {
        let launch = server.stop();
        let directory = directory(&launch);
        launch.flag("--keyvalue-dir", directory.display()).start()
    };
    assert_eq!(said(&server, "kv/get?a"), "none");
}

#[test]
fn places_that_cannot_be_are_refused() {
    let launch = functions();
    let functions = launch.functions();
    let refused = launch.flag("--keyvalue-dir", functions.join("kept").display()).refusal();
    assert!(refused.contains("overlaps"), "{refused}");
    let both = embedded().flag("--keyvalue-redis", "redis://127.0.0.1:1").refusal();
    assert!(both.contains("no --keyvalue-redis beside it"), "{both}");
    let refused = WasmBox::launch().flag("--keyvalue-redis", "http://127.0.0.1:1").refusal();
    assert!(refused.contains("redis://"), "{refused}");
}

fn redis(server: &RedisServer) -> Launch {
    functions().flag("--keyvalue-redis", server.url())
}

#[test]
fn values_are_kept_in_redis_for_all_boxes() {
    for software in Software::ALL {
        let redis_server = RedisServer::start(software);
        let server = redis(&redis_server).start();
        values_are_kept(&server);
        assert!(server.metrics().sum("wasmbox_keyvalue_operations_total", &["backend=\"redis\""]) > 100.0);
        assert!(!server.log().contains(RedisServer::PASSWORD), "{software:?}: {}", server.log());
        let another = redis(&redis_server).start();
        assert_eq!(said(&another, "kv/get?a"), "\"first\"");
        drop(server);
        assert_eq!(said(&another, "kv/increment?together,1"), "81");
    }
}

#[test]
fn a_function_has_a_quota_in_redis() {
    for software in Software::ALL {
        let redis_server = RedisServer::start(software);
        the_quota_holds(&redis(&redis_server).flag("--keyvalue-quota", "1Mi").start());
    }
}

/// A server that is gone is the box's operator's to know about; when it is back, it is used again.
#[test]
fn a_redis_that_is_gone_comes_back() {
    let mut redis_server = RedisServer::start(Software::Redis);
    let server = redis(&redis_server).start();
    assert_eq!(said(&server, "kv/set?a,b"), "set");
    redis_server.end();
    for _ in 0..5 {
        assert_eq!(said(&server, "kv/get?a"), "error=the store failed; the box's log says why");
    }
    server.logged(&["WARN", "the store of functions' values fails", "backend=redis"]);
    assert_eq!(server.log().matches("the store of functions' values fails").count(), 1);
    redis_server.begin_again();
    // It is tried again after a second.
    eventually("Redis is used again", || (said(&server, "kv/get?a") == "none").then_some(()));
    assert_eq!(said(&server, "kv/set?a,b"), "set");
    assert_eq!(said(&server, "kv/get?a"), "\"b\"");
}
