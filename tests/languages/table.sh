#!/usr/bin/env bash
# Puts what `LANGUAGES=all make languages` has measured (target/languages) into the table of docs/languages.md.
set -euo pipefail
cd "$(dirname "$0")/../.."

table=docs/languages.md
rows=()
for language in wat rust go c assemblyscript js python rust-wstd rust-p3 rust-spin go-cgi cpp zig cpython esbuild; do
    row=target/languages/$language.md
    [ -f "$row" ] || { echo "$row is missing: LANGUAGES=all make languages measures it" >&2; exit 1; }
    rows+=("$row")
done
# The rows of the first table alone.
cat "${rows[@]}" | awk '
    NR == FNR { rows = rows $0 "\n"; next }
    /^\|---/ && !done { print; printf "%s", rows; done = 1; skipping = 1; next }
    skipping && /^\|/ { next }
    { skipping = 0; print }
' - "$table" >"$table.new"
mv "$table.new" "$table"
