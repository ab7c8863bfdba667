# The two commands of the README are `make demo` and `make test`; `make check` is the gate.
CARGO ?= cargo
# Static binaries need an explicit target, else build scripts and proc-macros would be linked statically too.
STATIC_TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
# `make protocols` alone needs these two.
GO ?= go
PYTHON ?= python3
PROTOCOLS := $(CURDIR)/target/protocols

.PHONY: help demo test check fmt clippy doc build static cost protocols fuzz clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build every program (debug)
	$(CARGO) build --locked --workspace --bins

demo: build ## show the main job: a request to a ClusterSetIP lands where its route says, in another cluster
	target/debug/isthmus demo $(ARGS)

test: build ## every test, end-to-end ones included
	$(CARGO) test --locked --workspace

fmt: ## is everything formatted?
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

clippy: ## lints, warnings are errors
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc: ## API documentation, warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --document-private-items

check: fmt clippy test doc static ## the one gate: fmt, clippy, tests, docs, static programs

static: ## statically linked programs for images
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --locked --target $(STATIC_TARGET) -p isthmus-init

cost: ## what the sidecar costs: CPU time a request, memory (release build)
	$(CARGO) build --locked --release --workspace --bins
	$(CARGO) run --locked --release -p isthmus-tests --example proxy_cost

protocols: build $(PROTOCOLS)/venv/installed ## protocol suites that others wrote, against the real sidecar (needs Go and Python)
	cd tests/protocols && $(GO) vet ./... && $(GO) build -o $(PROTOCOLS)/ ./...
	$(CARGO) run --locked -p isthmus-tests --example protocols -- $(PROTOCOLS) $(ARGS)

$(PROTOCOLS)/venv/installed: tests/protocols/websocket/requirements.txt
	$(PYTHON) -m venv --clear $(PROTOCOLS)/venv
	$(PROTOCOLS)/venv/bin/pip install --quiet --requirement $<
	touch $@

fuzz: ## try whatever parses bytes or text with inputs nobody wrote (needs a nightly toolchain); FUZZ_SECONDS each
	fuzz/run $(ARGS)

clean: ## remove what was built
	$(CARGO) clean
