//! What compiling may cost, for one module and for many.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use wasmbox_tests::{TestCgroup, WasmBox, binary, component, eventually, guest, patience::SetOnDrop, process::Process};

use super::{LARGE, compilations, compilers, one_step, patient};

/// 190 KB that would take gigabytes: the box is in 512 MiB, and serves others meanwhile.
#[test]
fn a_module_that_exhausts_memory_is_invalid() {
    let cgroup = TestCgroup::with_memory(512);
    let server = WasmBox::launch()
        .function("exhausting.wasm", binary::exhausting(&[]))
        .function("hello.wat", guest::hello())
        .within(&cgroup)
        .start();
    server.get("/hello").ok();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = SetOnDrop(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                server.get("/hello").ok();
            }
        });
        patient(&server, "/exhausting").problem(422, "module-invalid").names(&["--compile-memory", "320 MiB"]);
    });
    // It is not compiled again.
    patient(&server, "/exhausting").problem(422, "module-invalid");
    assert_eq!((compilations(&server, "failed"), compilations(&server, "ok")), (1.0, 1.0));
    assert_eq!(cgroup.oom_kills(), 0);
}

/// What the allocator has for each thread must not count before it is used: it differed from one run to the next.
#[test]
fn a_component_of_300_kb_is_compiled_in_80_mib_every_time() {
    let copies = 0..8_u8;
    // A custom section (id 0) of no name and one byte: each is another component, and none is in the cache.
    let copy = |number| [component::http_guest(), &[0, 2, 0, number]].concat();
    let launch = one_step().flag("--compile-memory", "80Mi");
    let server = copies.clone().fold(launch, |launch, n| launch.function(&format!("f{n}.wasm"), copy(n))).start();
    for number in copies {
        patient(&server, &format!("/f{number}/headers")).ok();
    }
    assert_eq!((compilations(&server, "failed"), compilations(&server, "ok")), (0.0, 8.0));
}

#[test]
fn a_module_that_takes_too_long_is_invalid() {
    let server = one_step()
        .function("large.wasm", binary::large(4 * LARGE))
        .function("hello.wat", guest::hello())
        .flag("--compile-time", "3s")
        .start();
    patient(&server, "/large").problem(422, "module-invalid").names(&["3000 ms", "--compile-time"]);
    patient(&server, "/large").problem(422, "module-invalid");
    assert_eq!(compilations(&server, "failed"), 1.0);
    eventually("nothing compiles any more", || compilers(&server).is_empty().then_some(()));
    // Until it changes.
    server.put("large.wasm", binary::encoded(&guest::hello()));
    assert_eq!(patient(&server, "/large").ok().text(), "hello\n");
}

/// Forty modules of 30 MB at once, in a box of 1 GiB: what waits holds no bytes.
#[test]
fn many_large_modules_at_once_wait_without_their_bytes() {
    const SIZE: usize = 30 << 20;
    let cgroup = TestCgroup::with_memory(1024);
    let mut launch = WasmBox::launch().function("hello.wat", guest::hello()).within(&cgroup);
    for index in 0..40_u8 {
        // Data is quick to compile, and different content is another module.
        let text = format!("(module (memory 1) (func (export \"_start\")) (data \"{index}\"))");
        let mut module = binary::encoded(&text);
        module.extend(binary::custom_section("padding", &vec![index; SIZE]));
        launch = launch.function(&format!("large{index}.wasm"), module);
    }
    let server = launch.start();
    server.get("/hello").ok();
    thread::scope(|scope| {
        let server = &server;
        for index in 0..40 {
            scope.spawn(move || patient(server, &format!("/large{index}")).ok());
        }
        server.get("/hello").ok();
    });
    assert_eq!(cgroup.oom_kills(), 0);
    let peak = server.process().peak_resident_bytes();
    assert!(peak < 512 << 20, "{} MiB were resident", peak >> 20);
}

/// Each in a process of its own; and a small one does not wait for them.
#[test]
fn as_many_are_compiled_at_once_as_there_are_jobs() {
    let mut launch = one_step().function("small.wat", guest::hello()).flag("--compile-jobs", 3);
    for index in 0..3 {
        launch = launch.function(&format!("large{index}.wasm"), binary::large(LARGE + (index << 18)));
    }
    let server = launch.start();
    thread::scope(|scope| {
        let server = &server;
        let requests = [0, 1, 2].map(|index| scope.spawn(move || patient(server, &format!("/large{index}")).ok()));
        let first: BTreeSet<Process> = eventually("two compile", || {
            let compilers: BTreeSet<Process> = compilers(server).into_iter().collect();
            (compilers.len() == 2).then_some(compilers)
        });
        server.get("/small").ok();
        let still: BTreeSet<Process> = compilers(server).into_iter().collect();
        assert!(!first.is_disjoint(&still), "the large modules were compiled too soon to show anything");
        for request in requests {
            request.join().expect("an answer");
        }
    });
}
