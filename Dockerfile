# One static image: the box, the shim and the installer, for amd64 and arm64. Nothing else is in it, no shell either.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/wasmbox .
#   docker run --rm --publish 8095:8095 --volume "$PWD/examples/functions:/functions:ro" wasmbox
#
# The build machine compiles for both (cross-compilation): nothing is emulated. With binaries that are built already, in target/static:
#
#   buildah build --format docker --build-arg BINARIES=prebuilt --tag wasmbox .

# `build`: from source. `prebuilt`: target/static.
ARG BINARIES=build

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
# amd64 or arm64: the builder sets it, and would not over a default.
ARG TARGETARCH
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The compiler of C parts, and the linker. Not pinned: they are those of the base image's Debian.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-x86-64-linux-gnu libc6-dev-amd64-cross && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN deployment/build-static.sh /binaries "$TARGETARCH"

FROM scratch AS prebuilt
COPY target/static/ /binaries/

# hadolint ignore=DL3006
FROM ${BINARIES} AS binaries

FROM scratch
COPY --from=binaries /binaries/ /usr/local/bin/
# The directory must belong to the box's user, and to nobody else: what is in it is run.
COPY --chown=65532:65532 deployment/image/cache/ /var/cache/wasmbox/
COPY deployment/image/passwd deployment/image/group /etc/
ENV FUNCTIONS_DIR=/functions CACHE_DIR=/var/cache/wasmbox/native PATH=/usr/local/bin
WORKDIR /functions
USER 65532:65532
EXPOSE 8095 8086
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/usr/local/bin/wasmbox", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/wasmbox"]
CMD ["serve"]
