//! Whoever can write the volume, and whoever reaches the port.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
};

use http::Method;
use wasmbox_tests::{Wire, eventually, guest};

use super::{
    TOKEN, ask, assert_nothing_left, delete, descriptors, get, launch, put, request, roll_back, token_file, versions,
};

/// A link in the place of a function is replaced; what it leads to is not touched.
#[test]
fn links_lead_nowhere() {
    let launch = launch();
    let (functions, token) = (launch.functions(), token_file(&launch));
    symlink(&token, functions.join("f.wasm")).expect("a link");
    symlink(&token, functions.join("f.toml")).expect("a link");
    symlink("/etc", functions.join("g.wasm")).expect("a link");
    let server = launch.start();
    for name in ["f", "g"] {
        let answer = put(&server, name, guest::hello());
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        assert!(fs::symlink_metadata(functions.join(format!("{name}.wasm"))).expect("a file").is_file());
    }
    let settings = ask(&server, request(Method::PUT, "/functions/f/settings"), "args = ['x']");
    assert!(settings.status < 300, "{settings:?}");
    assert!(fs::symlink_metadata(functions.join("f.toml")).expect("a file").is_file());
    assert_eq!(fs::read_to_string(&token).expect("the file"), format!("{TOKEN}\n"));
    // Nor does the box's own directory, when somebody replaces it.
    let elsewhere = server.launched().directory().join("elsewhere");
    for own in ["", "/uploads", "/history", "/history/f"] {
        let own = functions.join(format!(".wasmbox{own}"));
        let aside = functions.join(".aside");
        fs::create_dir_all(elsewhere.join("uploads/x")).expect("a directory");
        fs::create_dir_all(elsewhere.join("history/f")).expect("a directory");
        fs::rename(&own, &aside).expect("the box made it");
        symlink(&elsewhere, &own).expect("a link");
        put(&server, "f", guest::printing("other", "")).problem(500, "internal");
        let rolled = roll_back(&server, "f", "");
        assert!(rolled.status >= 400, "{rolled:?}");
        server.admin("/live").ok();
        fs::remove_file(&own).expect("the link");
        fs::rename(&aside, &own).expect("its place");
    }
    assert!(elsewhere.join("uploads/x").is_dir());
    assert_eq!(fs::read_dir(elsewhere.join("uploads")).expect("a directory").count(), 1);
    assert_eq!(fs::read_dir(elsewhere.join("history/f")).expect("a directory").count(), 0);
    put(&server, "f", guest::printing("good", "")).ok();
    assert_eq!(server.get("/f").ok().text(), "good");
    assert_nothing_left(&functions, &["f.toml", "f.wasm", "g.wasm"]);
}

/// FIFOs, directories and devices in the place of files hold nobody up.
#[test]
fn what_is_no_file_is_in_nobodys_way() {
    let launch = launch();
    let functions = launch.functions();
    let fifo = |path: &std::path::Path| {
        let made = rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0);
        made.expect("a FIFO");
        assert!(fs::symlink_metadata(path).expect("it is there").file_type().is_fifo());
    };
    fifo(&functions.join("f.wasm"));
    fifo(&functions.join("f.toml"));
    fs::create_dir(functions.join("d.wasm")).expect("a directory");
    let server = launch.start();
    let answer = put(&server, "f", guest::hello());
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    let settings = ask(&server, request(Method::PUT, "/functions/f/settings"), "args = ['x']");
    assert!(settings.status < 300, "{settings:?}");
    assert_eq!(server.get("/f").ok().text(), "hello\n");
    put(&server, "d", guest::hello()).problem(409, "function-conflict").names(&["directory"]);
    server.get("/d").problem(404, "module-not-found");
    get(&server, "/functions?stored").ok();
    delete(&server, "/functions/d").problem(404, "module-not-found");
    eventually("no descriptor is left", || (descriptors(&server) == 0).then_some(()));
}

#[test]
fn a_version_that_somebody_has_changed_does_not_serve() {
    let server = launch().start();
    put(&server, "f", guest::printing("one", ""));
    put(&server, "f", guest::printing("two", ""));
    let history = server.functions().join(".wasmbox/history/f");
    let mut directories: Vec<_> =
        fs::read_dir(&history).expect("it is there").flatten().map(|entry| entry.path()).collect();
    directories.sort();
    fs::write(directories[0].join("f.wasm"), guest::printing("evil", "")).expect("a file");
    roll_back(&server, "f", "").problem(409, "function-conflict").names(&["changed"]);
    assert_eq!(server.get("/f").ok().text(), "two");
    // Names that mean nothing are left alone.
    fs::create_dir(history.join("99999999-no")).expect("a directory");
    fs::write(history.join("rubbish"), "").expect("a file");
    assert_eq!(versions(&server, "f").len(), 2);
    put(&server, "f", guest::printing("three", "")).ok();
    assert_eq!(versions(&server, "f")[0]["version"], 3);
}

/// Neighbours without the token hold nothing, and those with it not more than there is.
#[test]
fn stalled_uploads_stop_nobody() {
    let server = launch().start();
    put(&server, "f", guest::printing("before", ""));
    let head = |authorization: &str| {
        format!("PUT /functions/f HTTP/1.1\r\nHost: box\r\n{authorization}Content-Length: 1000000\r\n\r\nhalf")
    };
    let silent: Vec<Wire> = (0..64).map(|_| Wire::send_to(server.admin_address(), head(""))).collect();
    let with_token = format!("Authorization: Bearer {TOKEN}\r\n");
    // 8 are let in, 64 wait, and the others are not even waited with.
    let stalled: Vec<Wire> = (0..80).map(|_| Wire::send_to(server.admin_address(), head(&with_token))).collect();
    let busy = || server.metrics().sum("wasmbox_upload_requests_total", &["outcome=\"failed\""]);
    eventually("those for whom there is no place are refused", || (busy() == 8.0).then_some(()));
    put(&server, "g", guest::hello()).problem(503, "uploads-busy");
    eventually("as many uploads as there may be have begun", || {
        (super::unfinished(&server.functions()).len() == 8).then_some(())
    });
    for path in ["/live", "/ready", "/metrics", "/functions", "/status"] {
        server.admin(path).ok();
    }
    // Nor does it hold up what is no upload.
    get(&server, "/functions/f").ok();
    assert_eq!(server.get("/f").ok().text(), "before");
    assert!(descriptors(&server) <= 64, "{}", descriptors(&server));
    for mut wire in silent {
        wire.answer().problem(401, "unauthorized");
    }
    drop(stalled);
    assert_nothing_left(&server.functions(), &["f.wasm"]);
    // Those who waited are gone in a moment, too.
    eventually("there is a place again", || {
        (put(&server, "f", guest::printing("after", "")).status == 200).then_some(())
    });
}

/// As in a container: not root, no right, the files of others.
#[test]
fn a_box_without_rights_takes_functions() {
    let launch = launch().flag("--cache-dir", "none").flag("--enable-cgroups", false);
    let functions = launch.functions();
    fs::write(functions.join("f.wasm"), guest::printing("by hand", "")).expect("a file");
    for (path, mode) in [(launch.directory(), 0o755), (&functions, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the directory is ours");
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--no-new-privs"];
    let server = launch.through(user).start();
    put(&server, "f", guest::printing("put", "")).ok();
    assert_eq!(server.get("/f").ok().text(), "put");
    roll_back(&server, "f", "").ok();
    assert_eq!(server.get("/f").ok().text(), "by hand");
    assert_eq!(put(&server, "g", guest::hello()).status, 201);
    assert_nothing_left(&functions, &["f.wasm", "g.wasm"]);
}

/// One that could not read any function would answer that there is none.
#[test]
fn a_directory_that_cannot_be_read() {
    let launch = launch().function("f.wat", guest::hello()).flag("--cache-dir", "none").flag("--enable-cgroups", false);
    let functions = launch.functions();
    for (path, mode) in [(launch.directory(), 0o755), (&functions, 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the directory is ours");
    }
    let refusal = launch.through(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]).refusal();
    for part in ["functions directory", "Permission denied", "let this user read it", "--functions-dir"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
}

/// A box that cannot write says so, and serves.
#[test]
fn a_directory_that_cannot_be_written() {
    let launch = launch().function("f.wat", guest::printing("there", ""));
    let script =
        format!("mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"", launch.functions().display());
    let server = launch.through(["unshare", "--mount", "sh", "-c", &script, "sh"]).start();
    assert_eq!(server.get("/f").ok().text(), "there");
    put(&server, "f", guest::hello()).problem(500, "internal").names(&["Read-only"]);
    server.logged(&["functions cannot be put here"]);
}
