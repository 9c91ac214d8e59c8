#!/usr/bin/env bash
# Runs all tests, and shows at the end what ran: `make test` calls it when what they need is there; with --ignored, as `make e2e` does, those
# that `make test` leaves out.
set -uo pipefail
cd "$(dirname "$0")/.."

log=target/test.log
mkdir -p target
# First alone, so that its progress is shown.
cargo test --release --workspace --no-run || exit
cargo test --release --workspace --no-fail-fast -- "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

# "Running tests/errors/main.rs (target/release/deps/errors-0123)", "Doc-tests wasmbox", "test a ... ignored, why", "test result: ok. 1 passed; ...".
awk '
    function row(a, b, c, d, e) { printf "%-34s %7s %7s %8s %8s\n", a, b, c, d, e }
    BEGIN { print "\n=== What ran ==="; row("", "passed", "failed", "skipped", "seconds") }
    function died() { if (begun) { failed[++failures] = suite " ended without a result"; begun = 0 } }
    $1 == "Running" {
        died(); begun = 1
        binary = $NF; sub(/.*\//, "", binary); sub(/-[0-9a-f]+\)$/, "", binary)
        suite = ($2 == "unittests" ? "unit tests of " : "tests ") binary
    }
    $1 == "Doc-tests" { died(); begun = 1; suite = "documentation of " $2 }
    /^test .* \.\.\. ignored/ { why = $0; sub(/.* ignored,? ?/, "", why); skipped[why]++ }
    # Tests of the shim are in modules named after the version of containerd: containerd_1_6.
    /^test .*containerd_[0-9_]+::.* \.\.\. (ok|FAILED)/ {
        match($2, /containerd_[0-9_]+::/)
        version = substr($2, RSTART + 11, RLENGTH - 13); sub(/_/, ".", version)
        on[version]++
    }
    /^test .* \.\.\. FAILED/ { failed[++failures] = $2 " (" suite ")" }
    /^test result:/ {
        begun = 0
        seconds = $0; sub(/.*finished in /, "", seconds); sub(/s$/, "", seconds)
        if ($4 + $6 + $8 > 0) row(suite, $4, $6, $8, seconds)
        passed += $4; lost += $6; left += $8; time += seconds
    }
    END {
        died()
        row("all", passed + 0, lost + 0, left + 0, sprintf("%.2f", time))
        for (version in on) print "with containerd " version ": " on[version] " tests" | "sort"
        close("sort")
        for (why in skipped) print "skipped: " skipped[why] " tests: " (why == "" ? "no reason given" : why)
        for (i = 1; i <= failures; i++) print "FAILED: " failed[i]
    }
' "$log"
exit "$status"
