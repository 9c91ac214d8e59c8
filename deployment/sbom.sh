#!/usr/bin/env bash
# sbom.sh CARGO-CYCLONEDX DIRECTORY: a bill of materials (CycloneDX, JSON) for each program: every crate that is compiled into it, with version and licence.
set -euo pipefail
[ $# = 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
mkdir -p "$2"
tool=$(realpath "$1")
directory=$(realpath "$2")
cd "$(dirname "$0")/.."

# It writes a file beside the manifest of each member of the workspace.
name=sbom-being-made
trap 'rm -f -- */$name.json' EXIT
"$tool" cyclonedx --quiet --format json --override-filename $name
for package in runtime-http shim installer; do
    program=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$package/Cargo.toml" | head -1)
    components=$(grep -c '"bom-ref"' "$package/$name.json")
    [ "$components" -gt 20 ] || { echo "$package: $components components are too few" >&2; exit 1; }
    mv "$package/$name.json" "$directory/$program.cdx.json"
    echo "$directory/$program.cdx.json: $components components"
done
