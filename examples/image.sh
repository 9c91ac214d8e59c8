#!/usr/bin/env bash
# Makes an image of a directory, without a registry or a daemon: an OCI archive for `ctr image import`.
#
#   examples/image.sh [--entrypoint WORD]... [--env NAME=VALUE]... [--user UID[:GID]] NAME DIRECTORY ARCHIVE
#
# NAME is the image's reference, docker.io/library/hello:latest for instance. The archive is the same for the same files.
set -euo pipefail

usage() {
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
# word TEXT: a JSON string.
word() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    printf '"%s"' "${text//$'\t'/\\t}"
}
entrypoint=() environment=() user=
while [ $# -gt 0 ]; do
    case $1 in
        --entrypoint) entrypoint+=("$(word "${2?}")"); shift 2 ;;
        --env) environment+=("$(word "${2?}")"); shift 2 ;;
        --user) user=${2?}; shift 2 ;;
        -*) usage ;;
        *) break ;;
    esac
done
[ $# = 3 ] || usage
name=$1 directory=$2 archive=$3
[ -d "$directory" ] || { echo "$0: $directory is no directory" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
blobs=$work/image/blobs/sha256
mkdir -p "$blobs"
# add FILE MEDIA_TYPE: puts a blob into the image, and prints its descriptor.
add() {
    local digest
    digest=$(sha256sum "$1" | cut -d ' ' -f 1)
    cp "$1" "$blobs/$digest"
    printf '"mediaType":"%s","digest":"sha256:%s","size":%s' "$2" "$digest" "$(stat -c %s "$1")"
}
joined() { local IFS=,; echo "$*"; }

tar -C "$directory" --owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name -cf "$work/layer" .
layer=$(add "$work/layer" application/vnd.oci.image.layer.v1.tar)
architecture=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
cat >"$work/config" <<JSON
{"architecture":"$architecture","os":"linux",
 "config":{"Env":[$(joined "${environment[@]}")],"Entrypoint":[$(joined "${entrypoint[@]}")],"User":$(word "$user"),"WorkingDir":"/"},
 "rootfs":{"type":"layers","diff_ids":["sha256:$(sha256sum "$work/layer" | cut -d ' ' -f 1)"]}}
JSON
config=$(add "$work/config" application/vnd.oci.image.config.v1+json)
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{%s},"layers":[{%s}]}' \
    "$config" "$layer" >"$work/manifest"
manifest=$(add "$work/manifest" application/vnd.oci.image.manifest.v1+json)
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/image/oci-layout"
printf '{"schemaVersion":2,"manifests":[{%s,"annotations":{"io.containerd.image.name":%s}}]}' \
    "$manifest" "$(word "$name")" >"$work/image/index.json"
tar -C "$work/image" --owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name -cf "$archive" .
