# Sourced by scripts that take programs out of Debian's packages: package lists of releases, beside those of the system, from where the system has its own.
# shellcheck shell=bash

# debian_lists DIRECTORY SUITE...: what apt-get finds from now on is what these suites have. DIRECTORY is the script's to remove.
debian_lists() {
    local directory=$1 mirror suite
    shift
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [ ! -e $keyring ]; then
        echo "$keyring is missing: install the package debian-archive-keyring" >&2
        return 1
    fi
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep '/debian/\?$' | head -n 1 || true)
    mkdir -p "$directory"/{lists,archives}/partial
    for suite in "$@"; do
        echo "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $suite main"
    done >"$directory/sources.list"
    : >"$directory/status"
    cat >"$directory/apt.conf" <<CONF
Dir::Etc::SourceList "$directory/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$directory/lists";
Dir::State::Status "$directory/status";
Dir::Cache "$directory";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
    export APT_CONFIG=$directory/apt.conf
    if ! apt-get update -qq; then
        echo "the package lists of Debian cannot be had" >&2
        return 1
    fi
}
