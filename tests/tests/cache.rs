//! The AOT cache on disk, and native images elsewhere.

use std::{
    fs::{self, FileTimes, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use wasmbox_tests::{WasmBox, guest, metrics::Metrics, server::Launch};

/// The images in a cache.
fn images(launch: &Launch) -> Vec<PathBuf> {
    let entries = fs::read_dir(launch.cache()).expect("the cache is a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut images: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "cwasm")).collect();
    images.sort();
    images
}

fn disk(metrics: &Metrics, result: &str) -> f64 {
    metrics.sum("wasmbox_cache_requests_total", &["cache=\"disk\"", &format!("result=\"{result}\"")])
}

fn compilations(metrics: &Metrics) -> f64 {
    metrics.sum("wasmbox_compilations_total", &[])
}

/// A server that has run `hello.wat` and `other.wat`, ended; two images are in its cache.
fn filled() -> Launch {
    let server = WasmBox::launch().function("hello.wat", guest::hello()).function("other.wat", guest::echo()).start();
    server.get("/hello").ok();
    server.get("/other").ok();
    let metrics = server.metrics();
    assert_eq!((disk(&metrics, "miss"), compilations(&metrics)), (2.0, 2.0));
    let launch = server.stop();
    assert_eq!(images(&launch).len(), 2);
    launch
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).expect("the image can be read");
    change(&mut content);
    fs::remove_file(path).expect("the image is there");
    fs::write(path, content).expect("a new image");
    fs::set_permissions(path, Permissions::from_mode(0o400)).expect("the image is ours");
}

#[test]
fn a_restart_finds_what_was_compiled() {
    let server = filled().start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    let metrics = server.metrics();
    assert_eq!((disk(&metrics, "hit"), disk(&metrics, "miss"), compilations(&metrics)), (1.0, 0.0, 0.0));
    // The same content under another name is the same code.
    server.put("renamed.wat", guest::hello());
    server.get("/renamed").ok();
    assert_eq!(compilations(&server.metrics()), 0.0);
}

#[test]
fn a_changed_image_is_refused_and_made_anew() {
    for damage in [
        // One bit of the code, one of what authenticates it, a shorter file, none.
        (|image: &mut Vec<u8>| image[5000] ^= 1) as fn(&mut Vec<u8>),
        |image| *image.last_mut().expect("an image") ^= 0x80,
        |image| image.truncate(image.len() - 1),
        |image| image.push(0),
        Vec::clear,
    ] {
        let launch = filled();
        for image in images(&launch) {
            change(&image, damage);
        }
        let server = launch.start();
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
        assert_eq!(compilations(&server.metrics()), 1.0);
        server.logged(&["WARN", "AOT cache", "removed"]);
        let server = server.stop().start();
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
        assert_eq!(compilations(&server.metrics()), 0.0);
    }
}

/// The same file with another content, and the times that it had, as far as these can be set.
fn exchange(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = fs::read(path).expect("the file can be read");
    let metadata = fs::metadata(path).expect("the file is there");
    change(&mut content);
    assert_eq!(content.len() as u64, metadata.len());
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("the file is ours");
    fs::write(path, content).expect("the file can be written");
    fs::set_permissions(path, metadata.permissions()).expect("the file is ours");
    let file = fs::File::open(path).expect("the file is there");
    file.set_times(FileTimes::new().set_modified(metadata.modified().expect("a time"))).expect("the file is ours");
}

/// A server that has checked what is in its cache, ended: the next one need not.
fn checked() -> Launch {
    let launch = filled();
    // A file that has just changed could change again and keep its times.
    thread::sleep(Duration::from_millis(200));
    let server = launch.start();
    for name in ["/hello", "/other"] {
        server.post(name, "").ok();
    }
    assert_eq!(disk(&server.metrics(), "hit"), 2.0);
    server.stop()
}

#[test]
fn what_was_checked_is_not_read_again() {
    let mut launch = checked();
    for _ in 0..2 {
        let server = launch.start();
        assert_eq!(server.get("/hello").ok().text(), "hello\n");
        assert_eq!(server.post("/other", "echoed").ok().text(), "echoed");
        let metrics = server.metrics();
        assert_eq!((disk(&metrics, "recalled"), disk(&metrics, "hit"), disk(&metrics, "miss")), (2.0, 0.0, 0.0));
        launch = server.stop();
    }
}

#[test]
fn a_module_that_changes_is_not_taken_for_what_was_checked() {
    let launch = checked();
    exchange(&launch.functions().join("hello.wat"), |module| {
        *module = guest::printing("jello\n", "").into_bytes();
    });
    let server = launch.start();
    assert_eq!(server.get("/hello").ok().text(), "jello\n");
    assert_eq!(server.post("/other", "echoed").ok().text(), "echoed");
    assert_eq!(disk(&server.metrics(), "recalled"), 1.0);
}

#[test]
fn an_image_that_changes_after_it_was_checked_is_refused() {
    let launch = checked();
    for image in images(&launch) {
        exchange(&image, |image| image[5000] ^= 1);
    }
    let server = launch.start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    assert_eq!((disk(&server.metrics(), "recalled"), compilations(&server.metrics())), (0.0, 1.0));
    server.logged(&["WARN", "AOT cache", "removed"]);
}

/// Whoever writes the directory and does not have the key cannot vouch for anything.
#[test]
fn what_is_written_down_about_checked_files_has_a_mac() {
    let launch = checked();
    exchange(&launch.cache().join("checked"), |records| {
        records.iter_mut().filter(|byte| **byte != 0).for_each(|byte| *byte ^= 1);
    });
    let server = launch.start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    assert_eq!((disk(&server.metrics(), "recalled"), disk(&server.metrics(), "hit")), (0.0, 1.0));
}

/// An image that is genuine, but another module's.
#[test]
fn one_image_cannot_stand_in_for_another() {
    let launch = filled();
    let images = images(&launch);
    let [first, second] = images.as_slice() else { panic!("{images:?}") };
    let aside = launch.cache().join("aside");
    fs::rename(first, &aside).and_then(|()| fs::rename(second, first)).expect("new names");
    fs::rename(&aside, second).expect("a new name");
    let server = launch.start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    assert_eq!(server.post("/other", "echoed").ok().text(), "echoed");
    assert_eq!(compilations(&server.metrics()), 2.0);
}

/// Another user's, or one made with another key.
#[test]
fn an_image_of_another_key_is_refused() {
    let launch = filled();
    fs::remove_file(launch.cache().join("key")).expect("the key is there");
    let server = launch.start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    assert_eq!(compilations(&server.metrics()), 1.0);
}

#[test]
fn an_image_that_others_may_write_is_refused() {
    let launch = filled();
    for image in images(&launch) {
        fs::set_permissions(image, Permissions::from_mode(0o622)).expect("the image is ours");
    }
    let server = launch.start();
    assert_eq!(server.get("/hello").ok().text(), "hello\n");
    assert_eq!(compilations(&server.metrics()), 1.0);
}

#[test]
fn everything_in_the_cache_is_private() {
    let launch = filled();
    let mode = |path: &Path| fs::metadata(path).expect("the file is there").mode() & 0o777;
    assert_eq!(mode(&launch.cache().join("key")), 0o400);
    assert_eq!(mode(&launch.cache().join("checked")), 0o600);
    for image in images(&launch) {
        assert_eq!(mode(&image), 0o400);
    }
    // One that the server makes itself.
    let made = launch.directory().join("made/below");
    let server = launch.flag("--cache-dir", made.display()).start();
    server.get("/hello").ok();
    assert_eq!(mode(&made), 0o700);
}

#[test]
fn an_unsafe_directory_is_refused_at_start() {
    for mode in [0o777, 0o770, 0o702, 0o1777] {
        let launch = WasmBox::launch();
        fs::set_permissions(launch.cache(), Permissions::from_mode(mode)).expect("the directory is ours");
        let said = launch.refusal();
        for part in [&launch.cache().display().to_string(), &format!("{mode:o}"), "--cache-dir"] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
    }
    // Others may read: compiled code is no secret, only the key is.
    let launch = WasmBox::launch();
    fs::set_permissions(launch.cache(), Permissions::from_mode(0o755)).expect("the directory is ours");
    drop(launch.start());
    let launch = WasmBox::launch();
    symlink(launch.cache(), launch.directory().join("link")).expect("a new symlink");
    let link = launch.directory().join("link").display().to_string();
    assert!(launch.flag("--cache-dir", &link).refusal().contains("is not a directory"));
    let launch = WasmBox::launch();
    let file = launch.directory().join("file").display().to_string();
    fs::write(&file, "").expect("a file");
    assert!(launch.flag("--cache-dir", &file).refusal().contains("--cache-dir"));
    // A key that others can read is none.
    let launch = filled();
    fs::set_permissions(launch.cache().join("key"), Permissions::from_mode(0o444)).expect("the key is ours");
    assert!(launch.refusal().contains("key"));
}

#[test]
fn without_a_cache_each_start_compiles() {
    let launch = WasmBox::launch().function("hello.wat", guest::hello()).flag("--cache-dir", "none");
    let server = launch.start();
    server.get("/hello").ok();
    let server = server.stop().start();
    server.get("/hello").ok();
    let metrics = server.metrics();
    assert_eq!((compilations(&metrics), disk(&metrics, "miss")), (1.0, 0.0));
    assert!(images(server.launched()).is_empty());
}

#[test]
fn the_cache_is_bounded() {
    let mut launch = WasmBox::launch().flag("--cache-size", "64Ki");
    for index in 0..6 {
        launch = launch.function(&format!("f{index}.wat"), guest::printing(format!("{index}"), ""));
    }
    let server = launch.start();
    for index in 0..6 {
        assert_eq!(server.get(&format!("/f{index}")).ok().text(), format!("{index}"));
    }
    let sizes = images(server.launched()).into_iter().map(|image| fs::metadata(image).expect("it is there").len());
    let sizes: Vec<u64> = sizes.collect();
    assert!(!sizes.is_empty() && sizes.iter().sum::<u64>() <= 64 << 10, "{sizes:?}");
    // Those that were removed still run: they are in memory.
    for index in 0..6 {
        assert_eq!(server.get(&format!("/f{index}")).ok().text(), format!("{index}"));
    }
}

/// A native image in the functions directory: machine code of whoever can write there.
#[test]
fn native_images_run_only_where_they_are_trusted() {
    let launch = filled();
    let mut natives = images(&launch).into_iter().map(|image| {
        let mut native = fs::read(image).expect("the image can be read");
        // Behind the code are 32 bytes that authenticate it in the cache.
        native.truncate(native.len() - 32);
        native
    });
    let (first, second) = (natives.next().expect("an image"), natives.next().expect("another image"));
    let mut broken = first.clone();
    broken[100] ^= 0xff;
    let launch = WasmBox::launch()
        .function("first.cwasm", &first)
        .function("second.wasm", &second)
        .function("broken.wasm", "\x7fELF but not more");
    let server = launch.start();
    for name in ["first.cwasm", "second"] {
        server.get(&format!("/{name}")).problem(422, "module-precompiled-untrusted").names(&["TRUST_PRECOMPILED"]);
    }
    server.get("/broken").problem(422, "module-invalid");
    let server = server.stop().env("TRUST_PRECOMPILED", "true").start();
    let answers = ["/first.cwasm", "/second"].map(|path| server.post(path, "echoed").ok().text().to_owned());
    assert!(answers.contains(&"hello\n".to_owned()) && answers.contains(&"echoed".to_owned()), "{answers:?}");
    assert_eq!(compilations(&server.metrics()), 0.0);
    server.get("/broken").problem(422, "module-invalid");
}
