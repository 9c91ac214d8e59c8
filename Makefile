# `make` lists the targets. Everything is built in the release profile and, but for what runs once and alone, with --workspace: with the features that
# all packages together want of what they depend on. So nothing is built twice; wasmtime takes minutes.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
SERVER := target/release/wasmbox

# Versions are pinned, so that a new release does not turn a build red.
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2
MDBOOK := 0.5.4
CARGO_DEB := 3.8.0
CARGO_GENERATE_RPM := 0.21.1
CARGO_CYCLONEDX := 0.5.9

# Seconds for each fuzz target, of which there are six.
FUZZ_SECONDS ?= 10

# make enemies ENEMIES_SECONDS=3600 ENEMIES_SEED=7; without a seed, the clock's.
ENEMIES_SECONDS ?= 120
ENEMIES_SEED ?=
export ENEMIES_SECONDS ENEMIES_SEED

# make mixed MIXED_SECONDS=3600
MIXED_SECONDS ?= 300
export MIXED_SECONDS

# make install PREFIX=/opt/wasmbox; DESTDIR for packages
PREFIX ?= /usr/local

# The binaries that are installed and packaged: make packages BINARIES=target/dist-amd64, of deployment/build-static.sh
BINARIES ?= target/static

# make run ARGS='--port 9000'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run build static install examples images test e2e languages languages-table man attack enemies lint fmt site packages sbom api-test page-test mixed deploy-test cluster-test fuzz bench bench-shim simulate clean toolchain
.SUFFIXES:

help: ## List the targets
	@awk -F ': .*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build examples ## Build what is missing, and serve the examples on port 8095
	@echo
	@echo "Serving examples/functions. Try: curl 'localhost:8095/rust-hello?arg=Ada' -d 'some text'"
	@echo
	$(SERVER) serve --functions-dir examples/functions $(ARGS)

build: toolchain ## Build the server: target/release/wasmbox
	$(CARGO) build --release --workspace --bin wasmbox

# For nodes and images: one file each, which needs no library. The C library's features that want it dynamic (name services) are not used.
static: toolchain ## Build binaries without need of any library: target/static
	PROFILE=release deployment/build-static.sh target/static

# Does not build what is there: with sudo, cargo may not be.
install: ## Put the static binaries on this node, where its containerd finds them, with man pages and completions (PREFIX=/usr/local)
	@[ -x $(BINARIES)/wasmbox ] || $(MAKE) static
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(BINARIES)/wasmbox $(BINARIES)/containerd-shim-wasmbox-v1
	$(BINARIES)/wasmbox man $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(BINARIES)/wasmbox completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/wasmbox
	$(BINARIES)/wasmbox completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_wasmbox
	$(BINARIES)/wasmbox completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/wasmbox.fish
	@echo "Now: ctr run --rm --runtime io.containerd.wasmbox.v1 IMAGE ID"

examples: toolchain ## Build the Rust examples (`make -C examples all` builds those in other languages)
	$(MAKE) --no-print-directory -C examples

images: examples ## Make images of the examples for `ctr run`, offline: target/images
	examples/images.sh

test: toolchain static images ## Install what the tests need, run all of them, show what ran
	tests/install-debian.sh
	PATH="$(TOOLS)/bin:$$PATH" tests/run.sh

e2e: toolchain static images ## Build more versions of what the shim works with (Go), and run the tests that need them
	tests/install-debian.sh
	tests/e2e/install-go.sh
	PATH="$(TOOLS)/bin:$$PATH" tests/run.sh --ignored

# Not in `test`, which needs Rust alone.
languages: build ## Build and call the templates of `wasmbox new` and other toolchains; LANGUAGES=all: large ones, too; needs Go, Node.js and Python
	tests/languages/install.sh
	WASI_CC="$(TOOLS)/wasi/clang" $(CARGO) test --release --workspace --test languages -- --test-threads=1 $(if $(filter all,$(LANGUAGES)),--include-ignored)

languages-table: LANGUAGES = all
languages-table: languages ## Put what `make languages` has measured into docs/languages.md
	tests/languages/table.sh

man: build ## Write the man pages: target/man
	$(SERVER) man target/man
	@echo "man -l target/man/wasmbox.1"

site: build $(TOOLS)/bin/mdbook-$(MDBOOK) ## Build the documentation site, target/site, and check each of its links; it needs no network
	$(CARGO) build --release --workspace --bin wasmbox-site
	target/release/wasmbox-site prepare . $(SERVER) target/site-source
	rm -rf target/site
	$(TOOLS)/bin/mdbook build target/site-source
	target/release/wasmbox-site check target/site

packages: $(TOOLS)/bin/cargo-deb-$(CARGO_DEB) $(TOOLS)/bin/cargo-generate-rpm-$(CARGO_GENERATE_RPM) ## Make and check a .deb and a .rpm of the static binaries: target/packages
	rm -rf target/packages
	$(MAKE) --no-print-directory install DESTDIR=$(CURDIR)/target/packages/root PREFIX=/usr
	install -D -m 644 deployment/systemd/functions-README target/packages/root/var/lib/wasmbox/functions/README
	$(TOOLS)/bin/cargo-deb --quiet --package wasmbox --no-build --no-strip --output target/packages/
	$(TOOLS)/bin/cargo-generate-rpm --package runtime-http --output target/packages/
	tests/packages/run.sh

sbom: $(TOOLS)/bin/cargo-cyclonedx-$(CARGO_CYCLONEDX) ## Write what the programs are made of, as CycloneDX: target/sbom
	deployment/sbom.sh $(TOOLS)/bin/cargo-cyclonedx target/sbom

attack: build ## Attack a box in small containers, as its functions' authors, its clients and writers of its volume; as root, alone on the machine
	$(CARGO) test --release --workspace --test attack -- --nocapture --test-threads=1

# The same target directory: what it depends on is built already.
enemies: build ## Attack it with generated modules, settings and bytes for two minutes (ENEMIES_SECONDS=3600 ENEMIES_SEED=7)
	$(CARGO) run --release --locked --manifest-path tests/enemies/Cargo.toml --target-dir target

lint: toolchain $(TOOLS)/bin/cargo-deny-$(CARGO_DENY) ## Check format, clippy, documentation, licences and sources
	$(CARGO) metadata --locked --format-version 1 >/dev/null
	$(CARGO) fmt --all --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) fmt --check --manifest-path tests/enemies/Cargo.toml
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	# Not among all targets, as they are not among all tests.
	$(CARGO) clippy --release --workspace --test attack --test languages -- -D warnings
	$(CARGO) clippy --release --locked --manifest-path tests/enemies/Cargo.toml --target-dir target -- -D warnings
	# For maintainers: private items are documented, and may be linked to.
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --release --workspace --no-deps --document-private-items
	# Not `advisories`: their database is a git repository, which a build that works offline cannot fetch.
	$(TOOLS)/bin/cargo-deny check --hide-inclusion-graph bans licenses sources

fmt: ## Format the sources
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml
	$(CARGO) fmt --manifest-path tests/enemies/Cargo.toml

api-test: build examples ## Hold docs/openapi.yaml against a running server, with schemathesis
	tests/api/run.sh

page-test: build site ## Use the live page, and the site's search, in a headless Chromium, as their users do; needs Node.js
	tests/page/run.sh

mixed: build ## Serve, fail, upload, roll back and look at the page for minutes, all at once; needs Node.js (MIXED_SECONDS=3600)
	tests/page/run.sh --mixed

deploy-test: static examples ## Check manifests, chart, alerts, dashboard, containerd's fragments and Dockerfile; build the image and run it; needs Go and root
	tests/deployment/run.sh

# ARGS='-test.run TestCluster/drain' for a part of it. Eight minutes, so it is not in .ci/run; the first time half an hour more, for it builds Kubernetes.
cluster-test: static ## Run the documents' commands on a real Kubernetes of one node, with KEDA and Knative; needs Go and root
	tests/cluster/install.sh
	tests/cluster/run.sh -test.v $(ARGS)

fuzz: toolchain $(TOOLS)/bin/cargo-fuzz-$(CARGO_FUZZ) ## Fuzz each parser for a few seconds (FUZZ_SECONDS=10)
	FUZZ_SECONDS=$(FUZZ_SECONDS) CARGO_FUZZ=$(TOOLS)/bin/cargo-fuzz fuzz/run.sh

bench: toolchain ## Measure the server beside wasmtime serve and bare hyper
	$(CARGO) run --profile dist -p wasmbox-bench -- $(ARGS)

bench-shim: static ## Measure the shim beside containerd's for runc: memory, time until a pod is up, execs and tasks at once (as root; ARGS='--only execs,tasks')
	tests/containerd/install-debian.sh
	$(CARGO) build --release --workspace --bin shim
	target/release/shim $(ARGS)

simulate: toolchain ## Admission beside a plain FIFO and the Knative fork's breaker, on a virtual clock (ARGS='--seed 7')
	$(CARGO) run --release -p wasmbox-bench --bin simulate -- $(ARGS)

clean: ## Remove everything built
	rm -rf target fuzz/corpus fuzz/artifacts
	$(MAKE) --no-print-directory -C examples clean

toolchain:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install rustup from https://rustup.rs" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing, which links. On Debian and Ubuntu: apt-get install gcc" >&2; exit 1; }

# Tools are installed below target/, for this project alone. The dev profile, since they run for seconds and build for minutes.
$(TOOLS)/bin/cargo-deny-$(CARGO_DENY): | toolchain
	$(CARGO) install --locked --debug --root $(TOOLS) cargo-deny --version $(CARGO_DENY)
	ln -f $(TOOLS)/bin/cargo-deny $@

$(TOOLS)/bin/cargo-fuzz-$(CARGO_FUZZ): | toolchain
	$(CARGO) install --locked --debug --root $(TOOLS) cargo-fuzz --version $(CARGO_FUZZ)
	ln -f $(TOOLS)/bin/cargo-fuzz $@

# Without what watches and serves.
$(TOOLS)/bin/mdbook-$(MDBOOK): | toolchain
	$(CARGO) install --locked --debug --root $(TOOLS) mdbook --version $(MDBOOK) --no-default-features --features search
	ln -f $(TOOLS)/bin/mdbook $@

$(TOOLS)/bin/cargo-deb-$(CARGO_DEB): | toolchain
	$(CARGO) install --locked --debug --root $(TOOLS) cargo-deb --version $(CARGO_DEB) --no-default-features
	ln -f $(TOOLS)/bin/cargo-deb $@

$(TOOLS)/bin/cargo-generate-rpm-$(CARGO_GENERATE_RPM): | toolchain
	$(CARGO) install --locked --debug --root $(TOOLS) cargo-generate-rpm --version $(CARGO_GENERATE_RPM)
	ln -f $(TOOLS)/bin/cargo-generate-rpm $@

$(TOOLS)/bin/cargo-cyclonedx-$(CARGO_CYCLONEDX): | toolchain
	$(CARGO) install --locked --debug --root $(TOOLS) cargo-cyclonedx --version $(CARGO_CYCLONEDX)
	ln -f $(TOOLS)/bin/cargo-cyclonedx $@
