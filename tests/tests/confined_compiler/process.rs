//! The process that compiles: what it can reach, and what becomes of a module if it ends otherwise than well.

use std::{fs, os::unix::fs::PermissionsExt, thread};

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use wasmbox_tests::{Request, WasmBox, binary, compiler::assert_confined, eventually, process::Process};

use super::{LARGE, compilations, compilers, one_step, patient};

/// One that has confined itself.
fn wait_for_compiler(server: &WasmBox) -> Process {
    let filters = |process: Process| process.status("Seccomp_filters")?.parse::<u32>().ok();
    eventually("a compiler runs, confined", || {
        let compiler = *compilers(server).first()?;
        // Beside the filter that it has from the box.
        (filters(compiler)? > filters(server.process())?).then_some(compiler)
    })
}

/// As root, and as a user without any right on a read-only root file system, as in a container.
#[test]
fn the_process_that_compiles_can_reach_nothing() {
    let unprivileged = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        "mount -o remount,bind,ro / 2>/dev/null || mount --bind / / && mount -o remount,bind,ro /; exec \"$@\"",
        "sh",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
    ];
    for wrapper in [&[][..], &unprivileged] {
        let launch = one_step().function("large.wasm", binary::large(LARGE)).flag("--cache-dir", "none");
        fs::set_permissions(launch.directory(), fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let server = launch.through(wrapper.iter().copied()).start();
        thread::scope(|scope| {
            let request = scope.spawn(|| patient(&server, "/large").ok());
            let compiler = wait_for_compiler(&server);
            // So that it does not end meanwhile.
            compiler.signal(Signal::STOP);
            assert_confined(compiler, &[]);
            compiler.signal(Signal::CONT);
            request.join().expect("an answer");
        });
        eventually("nothing compiles any more", || compilers(&server).is_empty().then_some(()));
    }
}

#[test]
fn it_ends_with_its_box() {
    // One that is killed leaves its cgroups.
    let launch = one_step().function("large.wasm", binary::large(4 * LARGE));
    let mut server = launch.flag("--enable-cgroups", false).start();
    let impatient = server.call(Request::get("/large").header("Invocation-Timeout", "1"), "");
    impatient.problem(503, "compiling");
    let compiler = wait_for_compiler(&server);
    server.signal(Signal::KILL);
    server.wait();
    eventually("the compiler has ended", || (!compiler.exists()).then_some(()));
}

/// Its limit is more than it can use within its time, unless it was taken over: so it is lowered here, as it is.
#[test]
fn a_compiler_that_uses_too_much_cpu_time_makes_its_module_invalid() {
    let server = one_step().function("large.wasm", binary::large(4 * LARGE)).start();
    thread::scope(|scope| {
        let request = scope.spawn(|| patient(&server, "/large"));
        let compiler = wait_for_compiler(&server);
        let [soft, hard] = compiler.limit("Max cpu time").map(|limit| limit.parse::<u64>().expect("it is limited"));
        let lowered = Rlimit { current: Some(1), maximum: Some(1 + (hard - soft)) };
        prlimit(Pid::from_raw(compiler.0 as i32), Resource::Cpu, lowered).expect("it compiles");
        request.join().expect("an answer").problem(422, "module-invalid").names(&["signal", "24"]);
    });
    patient(&server, "/large").problem(422, "module-invalid");
    assert_eq!(compilations(&server, "failed"), 1.0, "it is not compiled again");
}

/// By the kernel for want of memory, for instance: that is no fault of the module's.
#[test]
fn a_compiler_that_is_killed_is_started_again() {
    let server = one_step().function("large.wasm", binary::large(LARGE)).start();
    thread::scope(|scope| {
        let request = scope.spawn(|| patient(&server, "/large"));
        wait_for_compiler(&server).signal(Signal::KILL);
        let problem = request.join().expect("an answer").problem(503, "compiling");
        problem.names(&["large.wasm", "killed"]);
    });
    // Not at once, but in a moment.
    eventually("it is compiled", || {
        let answer = patient(&server, "/large");
        (answer.status == 200).then_some(())
    });
    assert_eq!((compilations(&server, "failed"), compilations(&server, "ok")), (1.0, 1.0));
}
