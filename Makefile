# Every verb of the project. `make` alone prints this list; the texts after ## are the help.

.DEFAULT_GOAL := help
CARGO ?= cargo

# Options for the programs: make run ARGS="serve", make bench-wire ARGS="--rounds 9".
ARGS ?=
# What builds images.
ENGINE ?= docker

.PHONY: help all build run demo test lint format generate ci blackbox contract-test \
	bench-build bench-wire bench-hot bench-mixed bench-seats bench-overload bench-scale bench-soak bench-expiry \
	load-test-ghz load-test-k6 observability-test k8s-test image-arm64 image-amd64 image-test arm64-boot tuning-test perf-build perf-guard

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

all: format lint test build ## Format, lint, test, build

build: ## Build the server with full optimisation (fat LTO: some minutes)
	$(CARGO) build --release --bin inventory-api

run: ## Run the server on the embedded engine (ARGS="dev --memory" and so on)
	$(CARGO) run --release --bin inventory-api -- $(or $(ARGS),dev)

demo: ## Sell out an event before your eyes and check every promise
	$(CARGO) run --release --bin inventory-api -- demo $(ARGS)

test: ## Run every test
	$(CARGO) test --workspace

lint: ## Check formatting, clippy and the docs, warnings being errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

format: ## Format the code
	$(CARGO) fmt --all

# Nothing generated is kept in the tree: cargo compiles proto/ whenever a contract changes. The
# touch makes it do so now.
generate: ## Compile the contracts under proto/ anew
	touch proto/inventory proto/reservation proto/common
	$(CARGO) build --package inventory-proto

bench-wire: ## CPU and latency of a repeated commit against a tonic twin (needs h2load; ARGS="--rounds 9")
	$(CARGO) build --release --bin inventory-api
	$(CARGO) build --release --package inventory-bench
	target/release/wire_cost $(ARGS)

# What the targets below need. They start a model of DynamoDB, the server and a generator, each on its
# CPU, and read the model back after every run. ARGS="--rounds 1 --seconds 20" for a quick look.
bench-build:
	$(CARGO) build --release --bin inventory-api
	$(CARGO) build --release --package inventory-rounds --package inventory-generator \
	  --package inventory-store-model --package inventory-peers

bench-hot: bench-build ## One hot event, 30,000 commits a second, against a twin (15 minutes)
	target/release/rounds hot $(ARGS)

bench-mixed: bench-build ## Fifty events, mostly checks, 30,000 calls a second (4 minutes)
	target/release/rounds mixed $(ARGS)

bench-seats: bench-build ## 20,000 seats, by name and best available (2 minutes)
	target/release/rounds seats $(ARGS)

bench-overload: bench-build ## Three times the measured capacity for a minute
	target/release/rounds overload $(ARGS)

bench-scale: bench-build ## More shards, connections and processes (10 minutes)
	target/release/rounds scale $(ARGS)

bench-soak: bench-build ## Twenty minutes of the mixed calls
	target/release/rounds soak $(ARGS)

bench-expiry: ## What 100,000 holds that end in one second do to commits (ARGS="--stripes 8")
	$(CARGO) build --release --bin inventory-api
	$(CARGO) build --release --package inventory-bench
	target/release/expiry_storm $(ARGS)

load-test-ghz: ## A steady load by ghz (says how to get it; ARGS="--target HOST:PORT --method check")
	bench/load/run.sh ghz $(ARGS)

load-test-k6: ## The same by k6
	bench/load/run.sh k6 $(ARGS)

observability-test: ## Watch a loaded server by a live Prometheus and OTLP receiver (ARGS="--cost")
	$(CARGO) build --release --bin inventory-api
	tests/observability/run.sh $(ARGS)

k8s-test: ## Render and validate the manifests, hold them against each other (ARGS="--self-test")
	tests/k8s/run.sh $(ARGS)

image-arm64: ## Build the image for Graviton (ENGINE=podman or so instead of docker)
	$(ENGINE) build --platform linux/arm64 -f Dockerfile.arm64 -t inventory-api:arm64 .

image-amd64: ## Build the image for amd64
	$(ENGINE) build --platform linux/amd64 -f Dockerfile.amd64 -t inventory-api:amd64 .

image-test: ## Build both images without a daemon, look into them, sell from one (ARGS="--quick")
	$(CARGO) build --workspace --bins
	tests/image/run.sh $(ARGS)

arm64-boot: ## Boot the server on an emulated Neoverse N1, sell an event out from outside (ARGS="--dev --fetch")
	$(CARGO) build --workspace --bins
	tests/arm64/run.sh $(ARGS)

tuning-test: ## Set and put back hosts that are made of files, and look at this one
	tests/tuning/run.sh

perf-build: ## Build what the scripts in perf/ record: a server with symbols, a load and a store
	RUSTFLAGS="-C force-frame-pointers=yes" CFLAGS="-fno-omit-frame-pointer" \
	  $(CARGO) build --profile profiling --bin inventory-api
	$(CARGO) build --release --package inventory-generator --package inventory-store-model

perf-guard: ## Instructions per request by callgrind against perf/baseline.txt (ARGS="--update")
	perf/guard.sh $(ARGS)

blackbox: ## Play foreign clients from pip against the server (ARGS="--slow")
	tests/blackbox/run.sh $(ARGS)

contract-test: ## Play the Reservation API against the server (ARGS="--slow --only TEXT")
	tests/contract/run.sh $(ARGS)

ci: ## Everything the CI runs
	bash .ci/run
