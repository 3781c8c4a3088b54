# Every verb of the project. `make` alone prints this list; the texts after ## are the help.

.DEFAULT_GOAL := help
CARGO ?= cargo

# Options for the programs: make run ARGS="serve", make bench-wire ARGS="--rounds 9".
ARGS ?=

.PHONY: help all build run demo test lint format generate bench-wire blackbox bench-expiry ci

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

bench-expiry: ## What 100,000 holds that end in one second do to commits (ARGS="--stripes 8")
	$(CARGO) build --release --bin inventory-api
	$(CARGO) build --release --package inventory-bench
	target/release/expiry_storm $(ARGS)

blackbox: ## Play foreign clients from pip against the server (ARGS="--slow")
	tests/blackbox/run.sh $(ARGS)

contract-test: ## Play the Reservation API against the server (ARGS="--slow --only TEXT")
	tests/contract/run.sh $(ARGS)

ci: ## Everything the CI runs
	bash .ci/run
