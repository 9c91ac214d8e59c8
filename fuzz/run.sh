#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS: `make fuzz`. An input that breaks a target is left in fuzz/artifacts.
#
# Without sanitizers, which find memory errors and need a nightly compiler: the parsers have no unsafe code. What is looked for are
# panics, overflows, and the targets' own assertions.
set -euo pipefail
cd "$(dirname "$0")"

# cargo-fuzz is a subcommand: without cargo it must be told so.
fuzz() { "${CARGO_FUZZ:-cargo-fuzz}" fuzz "$@"; }
options=(--sanitizer none --target-dir ../target/fuzz)

fuzz build "${options[@]}"
for target in $(fuzz list); do
    echo "--- $target"
    mkdir -p "corpus/$target"
    fuzz run "${options[@]}" "$target" "corpus/$target" "seeds/$target" -- \
        -max_total_time="${FUZZ_SECONDS:-10}" -timeout=5 -verbosity=0 -print_funcs=0 -print_final_stats=1 2>&1 |
        sed '/# Uses: /d; /ecommended dictionary/d'
done
