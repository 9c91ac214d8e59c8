#!/usr/bin/env bash
# Puts what `make languages` has measured (target/languages) into the table of docs/languages.md.
set -euo pipefail
cd "$(dirname "$0")/../.."

table=docs/languages.md
rows=()
for language in wat rust go c assemblyscript js python; do
    row=target/languages/$language.md
    [ -f "$row" ] || { echo "$row is missing: make languages measures it" >&2; exit 1; }
    rows+=("$row")
done
{
    sed '/^| toolchain /,$d' "$table"
    sed -n '/^| toolchain /,/^|---/p' "$table"
    cat "${rows[@]}"
    sed '1,/^|---/d' "$table" | sed '/^|/d'
} >"$table.new"
mv "$table.new" "$table"
