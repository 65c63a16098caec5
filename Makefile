# One profile (release) and one selection (everything) for trial, tests and benchmarks: what one has built, all use.
CARGO ?= cargo
BUILD := $(CARGO) build --release --locked --workspace --all-targets
TEST  := $(CARGO) test --release --locked --workspace --all-targets --no-fail-fast

.PHONY: help deps build trial test soak bench lint manifests

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

deps: ## installs what is missing with apt when root, else prints the one line to run
	@sh integration/deps.sh

build: ## builds programs, tests and benchmarks
	$(BUILD)

trial: deps build ## the whole system on this machine; KAFKA=host:9092 LOGS=/var/log/pods DATA=folder
	@target/release/trial

test: build ## all tests that this machine can run; names those that it cannot
	@target/release/components
	$(TEST)

soak: build ## the long forms of the fault scenarios and of the model test; makes the table in docs/reliability.md
	@target/release/components
	rm -rf target/soak/long
	FAIRLEAD_SOAK=1 PROPTEST_CASES=5000 $(TEST) -- soak:: whatever_happens; tested=$$?; target/release/soak-table && exit $$tested

bench: build ## the benchmarks: ratios to named baselines, and what an audit costs
	$(CARGO) bench --profile release --locked --workspace --bench router_vs_librdkafka --bench docker_vs_cri --bench audit

manifests: build ## writes deploy/manifests as the chart renders them
	@target/release/render-manifests

lint: ## formatting and clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
