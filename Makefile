# Targets of the project. `make` prints the list; the texts after ## are the help.

.DEFAULT_GOAL := help
CARGO ?= cargo

# Options of the started program: make run ARGS="serve", make bench-wire ARGS="--rounds 9".
ARGS ?=
# Rounds of `make chaos`, and the seed of the first one.
ROUNDS ?= 20
SEED ?= 0
# Container build tool.
ENGINE ?= docker
# Git revision of an image: the build has no git.
REVISION ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null || echo unknown)

.PHONY: help all build run demo test mutations lint format generate ci blackbox contract-test \
	bench-build bench-wire bench-hot bench-mixed bench-seats bench-overload bench-scale bench-fleet bench-soak bench-expiry outage-drill fleet-drill \
	fuzz load-test-ghz load-test-k6 observability-test k8s-test image-arm64 image-amd64 image-test arm64-boot tuning-test supply-chain reproducible-build http2-conformance tls-clients chaos hostile-clients perf-build perf-guard

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

all: format lint test build ## Format, lint, test, build

build: ## Build the optimised server (fat LTO; takes minutes)
	$(CARGO) build --profile dist --bin inventory-api

run: ## Run the server with the embedded store (ARGS="dev --memory")
	$(CARGO) run --release --bin inventory-api -- $(or $(ARGS),dev)

demo: ## Sell out an event and verify the stored stock
	$(CARGO) run --release --bin inventory-api -- demo $(ARGS)

test: ## Run all tests
	$(CARGO) test --workspace

mutations: ## Plant each fault in the core and print the test that catches it (docs/testing.md)
	$(CARGO) test --release -p inventory-core --features planted-faults --test simulation mutations -- --nocapture

lint: ## Check formatting, clippy and docs; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

format: ## Format the code
	$(CARGO) fmt --all

generate: ## Generate the Rust code of the .proto files
	UPDATE_PROTO=1 $(CARGO) test --package inventory-proto

bench-wire: ## Compare CPU and latency of a repeated commit with a plain tonic server (needs h2load; ARGS="--rounds 9")
	$(CARGO) build --profile dist --bin inventory-api
	$(CARGO) build --profile dist --package inventory-bench --package inventory-baseline
	target/dist/inventory-bench wire $(ARGS)

# Programs of the benchmarks below. Each benchmark starts a model of DynamoDB, the server and a load generator on
# separate CPUs, and audits the store after every run. ARGS="--rounds 1 --seconds 20" gives a short run.
bench-build:
	$(CARGO) build --profile dist --bin inventory-api
	$(CARGO) build --profile dist --package inventory-bench --package inventory-generator \
	  --package inventory-store-model --package inventory-baseline

bench-hot: bench-build ## One hot event at 30,000 commits per second, compared with the baseline (15 min)
	target/dist/inventory-bench hot $(ARGS)

bench-mixed: bench-build ## Fifty events, mostly checks, at 30,000 calls per second (4 min)
	target/dist/inventory-bench mixed $(ARGS)

bench-seats: bench-build ## 20,000 seats, by id and best available (2 min)
	target/dist/inventory-bench seats $(ARGS)

bench-overload: bench-build ## Three times the measured capacity for one minute
	target/dist/inventory-bench overload $(ARGS)

bench-scale: bench-build ## Scaling by shards, connections and processes (10 min)
	target/dist/inventory-bench scale $(ARGS)

bench-fleet: bench-build ## One event over 1, 2 and 4 processes on one CPU: commits, holds, seats (20 min)
	target/dist/inventory-bench fleet $(ARGS)

bench-soak: bench-build ## Mixed calls for 20 minutes
	target/dist/inventory-bench soak $(ARGS)

bench-expiry: ## Commit latency while 100,000 holds expire in one second (ARGS="--stripes 8")
	$(CARGO) build --profile dist --bin inventory-api
	$(CARGO) build --profile dist --package inventory-bench
	target/dist/inventory-bench expiry $(ARGS)

outage-drill: ## Outage drill: 3 processes, 10,000 holds expire while the store is away (2 min)
	DRILL_HOLDS=10000 DRILL_SECONDS=60 DRILL_BACK_SECONDS=10 \
	  $(CARGO) test --release --test e2e outage_drill -- --nocapture

fleet-drill: ## Rolling restart, SIGKILL and SIGSTOP of processes under 2,000 calls a second (4 min)
	FLEET_RATE=2000 FLEET_STOP_SECONDS=30 FLEET_P95_SLACK_MS=20 \
	  $(CARGO) test --release --test e2e fleet:: -- --nocapture --test-threads 1

chaos: ## Chaos on real processes: faults drawn by seed, checked histories (ROUNDS=20, SEED=0; 25 min for 20)
	CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(SEED) \
	  $(CARGO) test --release --test chaos -- --nocapture --exact chaos

hostile-clients: ## 16 attacks on HTTP/2 and TLS, 5 s each, beside a client whose latency and calls are checked (3 min)
	HOSTILE_PINNED=1 HOSTILE_MS=5000 HOSTILE_SLACK_MS=250 \
	  $(CARGO) test --release --test e2e hostile:: -- --nocapture

fuzz: ## Fuzz each target for a minute, two at a time (SECONDS=600, TARGETS="connection requests")
	tests/fuzz/run.sh --seconds $(or $(SECONDS),60) $(TARGETS)

load-test-ghz: ## Constant load with ghz (ARGS="--target HOST:PORT --method check")
	bench/load/run.sh ghz $(ARGS)

load-test-k6: ## Constant load with k6
	bench/load/run.sh k6 $(ARGS)

observability-test: ## Test metrics, rules, dashboards and spans with a live Prometheus and OTLP receiver (ARGS="--cost")
	$(CARGO) build --profile dist --bin inventory-api
	tests/observability/run.sh $(ARGS)

k8s-test: ## Render, validate and cross-check the Kubernetes manifests (ARGS="--self-test")
	tests/k8s/run.sh $(ARGS)

image-arm64: ## Build the ARM64 image for Graviton (ENGINE=podman instead of docker)
	$(ENGINE) build --platform linux/arm64 --build-arg REVISION=$(REVISION) -f Dockerfile.arm64 -t inventory-api:arm64 .

image-amd64: ## Build the amd64 image
	$(ENGINE) build --platform linux/amd64 --build-arg REVISION=$(REVISION) -f Dockerfile.amd64 -t inventory-api:amd64 .

image-test: ## Build both images without a daemon, check them, run a sale in one (ARGS="--quick")
	$(CARGO) build --workspace --bins
	tests/image/run.sh $(ARGS)

arm64-boot: ## Boot the server on an emulated Neoverse N1 and sell out an event (ARGS="--dev --fetch")
	$(CARGO) build --workspace --bins
	tests/arm64/run.sh $(ARGS)

tuning-test: ## Test tuning/host.sh on simulated hosts and check this host
	tests/tuning/run.sh

http2-conformance: ## Run h2spec and compare each case with the list of expected failures
	tests/h2spec/run.sh

tls-clients: ## Mutual TLS with a Go client: 2,000 calls a second while certificates are replaced (2 min)
	$(CARGO) build --release --bin inventory-api
	tests/tls_clients/run.sh --rate 2000 --seconds 60 --rounds 3 $(ARGS) target/release/inventory-api

supply-chain: ## Check licences, duplicates, sources and advisories of all crates, and the SBOM
	tests/supply_chain/run.sh

reproducible-build: ## Build the server twice in different directories and compare the bytes (ARGS="--profile dev")
	tests/supply_chain/reproducible.sh $(ARGS)

perf-build: ## Build a server with symbols, the load generator and the store model for perf/
	RUSTFLAGS="-C force-frame-pointers=yes" CFLAGS="-fno-omit-frame-pointer" \
	  $(CARGO) build --profile profiling --bin inventory-api
	$(CARGO) build --profile dist --package inventory-generator --package inventory-store-model

perf-guard: ## Compare instructions per request (callgrind) with perf/baseline.txt (ARGS="--update")
	perf/guard.sh $(ARGS)

blackbox: ## Test the server with third-party gRPC clients (ARGS="--slow")
	tests/blackbox/run.sh $(ARGS)

contract-test: ## Test the call sequences of the Reservation API (ARGS="--slow --only TEXT")
	tests/contract/run.sh $(ARGS)

ci: ## Run all CI checks
	bash .ci/run
