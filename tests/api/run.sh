#!/usr/bin/env bash
# Holds docs/openapi.yaml against a running server: `make api-test`. About a minute and a half.
# Takes the server and the directory of built examples from the workspace; leaves its own things in target/api-test.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
work=$root/target/api-test
server=$(realpath "${WASMBOX_BIN:-target/release/wasmbox}")
seconds=${API_TEST_SECONDS:-60}

mkdir -p "$work"
if ! "$work/venv/bin/st" --version >"$work/version" 2>/dev/null ||
    ! grep -qF "$(sed 's/.*==//' tests/api/requirements.txt)" "$work/version"; then
    echo "Installing schemathesis into $work/venv"
    # Anew: one of another version, or of a working copy that was moved, is in the way.
    rm -rf "$work/venv"
    python3 -m venv "$work/venv" || { echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/api/requirements.txt
fi

echo api-test-token-0123456789 >"$work/token"
rm -rf "$work/functions" && mkdir "$work/functions"
cp tests/api/functions/* examples/functions/{hello,echo}.wat examples/functions/{rust-hello,rust-http}.wasm "$work/functions/"

# Small limits, so that hostile functions cost little time; a full queue is part of the contract.
"$server" serve --host 127.0.0.1 --admin-host 127.0.0.1 --port 0 --admin-port 0 \
    --upload-token-file "$work/token" --functions-dir "$work/functions" --cache-dir "$work/cache" \
    --invocation-timeout 100ms --max-invocation-timeout 300ms --memory-request 64Mi --max-memory-request 256Mi \
    --concurrent-resource-request 512 --max-body 1Mi --drain-timeout 5s 2>"$work/server.log" &
server_id=$!
trap 'kill $server_id 2>/dev/null || true' EXIT

# The server logs its addresses when it serves.
address_of() { sed -n "s/.* serving.* $1=\([0-9.:]*\).*/\1/p" "$work/server.log"; }
for _ in $(seq 100); do
    [ -n "$(address_of admin)" ] && break
    kill -0 $server_id 2>/dev/null || { cat "$work/server.log"; exit 1; }
    sleep 0.1
done

# Compiled once, so that no answer depends on how fast that is.
for file in "$work"/functions/*.w*; do
    until [ "$(curl -s -o /dev/null -w '%header{wasmbox-error}' "$(address_of address)/$(basename "$file")")" != compiling ]; do
        sleep 0.1
    done
done

# Not asked: `not_a_server_error`, because 5xx are part of the contract (a trap is 500); `positive_data_acceptance`, because
# a well-formed name need not be a function's; the rest is about logins and stateful resources, of which there are none.
checks=status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance
checks=$checks,negative_data_rejection,problems_are_whole
failed=0
token=()
# part TAG MODE ADDRESS SECONDS CHECKS: MODE is `positive` (well-formed requests) or `negative` (the others).
part() {
    echo "--- $1, $2 (http://$3)"
    # It leaves files where it runs.
    (cd "$work" && API_TEST_MODE=$2 SCHEMATHESIS_HOOKS="$root/tests/api/hooks.py" venv/bin/st run "$root/docs/openapi.yaml" \
        --include-tag "$1" --mode "$2" --url "http://$3" --max-time "$4" --checks "$5" --phases examples,coverage,fuzzing \
        ${token[@]+"${token[@]}"} --workers 1 --request-timeout 30 --suppress-health-check all --generation-database none --warnings off) || failed=1
}
part functions positive "$(address_of address)" "$((seconds * 2 / 3))" "$checks"
part functions negative "$(address_of address)" "$((seconds / 3))" "$checks"
# An HTTP component takes any method; health and the admin port do not.
part health positive "$(address_of address)" 5 "$checks,unsupported_method,allow_header_conformance"
part admin positive "$(address_of admin)" 10 "$checks,unsupported_method,allow_header_conformance"
part admin negative "$(address_of admin)" 5 "$checks"
# Last, since it may change any function; without the token, and with it.
part uploads positive "$(address_of admin)" 5 "$checks"
token=(--header "Authorization: Bearer $(cat "$work/token")")
part uploads positive "$(address_of admin)" 15 "$checks"
# A header that nobody knows is none of the box's business, and is all that is wrong with some of these.
part uploads negative "$(address_of admin)" 5 "${checks/negative_data_rejection,/}"

# What no answer tells.
kill -0 $server_id || { echo "The server died."; failed=1; }
if grep -E 'panicked|internal error|code="?internal' "$work/server.log"; then
    echo "The server's log has faults of its own."; failed=1
fi
trap - EXIT
kill -TERM $server_id
wait $server_id || { echo "The server did not end cleanly after SIGTERM."; failed=1; }
[ $failed = 0 ] && echo "The server and docs/openapi.yaml agree."
exit $failed
