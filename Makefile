# The commands of the project. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_PROGRESS_WHEN ?= auto
RUN_ARGS ?=

.PHONY: help run test e2e cluster-up cluster-down loss soak setup fmt lint check crds crds-check docs bench bench-operator deny clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Build, then run a campaign (telnet echo and an HTTP API) on the embedded broker in one process
	@scripts/setup build
	cargo build --release -p vumi
	target/release/vumi run -f examples/two-transports-one-app $(RUN_ARGS)

setup: ## Install what the tests need: Debian packages, both RabbitMQ versions, the API server
	@scripts/setup test

test: setup ## Run every test below the cluster, on real brokers and a real API server
	scripts/test

e2e: ## Run the tests on a whole Kubernetes cluster: one of our own, or that of KUBECONFIG
	@tests/e2e/cluster/test $(E2E_ARGS)

cluster-up: ## Start a Kubernetes cluster for tests on this machine, or give the running one the newest images
	@tests/e2e/cluster/up

cluster-down: ## End that cluster
	@tests/e2e/cluster/down

loss: setup ## Run the loss test with 100 000 messages (VUMI_LOSS_SEED repeats a run)
	VUMI_LOSS_MESSAGES=$${VUMI_LOSS_MESSAGES:-100000} cargo test -p vumi --test it loss:: -- --nocapture

soak: setup ## The loss test with a million messages and its faults three times over, journals of a million, ten thousand seeds: an hour on two cores
	VUMI_LOSS_MESSAGES=$${VUMI_LOSS_MESSAGES:-1000000} VUMI_LOSS_ROUNDS=$${VUMI_LOSS_ROUNDS:-3} VUMI_LOSS_REPEATED=$${VUMI_LOSS_REPEATED:-1} cargo test --release -p vumi --test it loss:: -- --nocapture
	VUMI_JOURNAL=$${VUMI_JOURNAL:-1000000,100000} cargo test --release -p vumi --test it a_deep_journal -- --nocapture
	VUMI_JOURNAL=$${VUMI_JOURNAL:-1000000,100000} cargo test --release -p vumi-core --lib a_deep_journal -- --nocapture
	VUMI_BULK=$${VUMI_BULK:-100000} cargo test --release -p vumi-core --lib every_interactive_message -- --nocapture
	VUMI_KILLS=$${VUMI_KILLS:-0..5000} cargo test --release -p vumi-core --lib whatever_operation_the_process_dies_at -- --nocapture
	VUMI_LIVES=$${VUMI_LIVES:-0..10000} cargo test --release -p vumi-core --lib whatever_operation_a_transport_dies_at -- --nocapture
	VUMI_KILLS_REDIS=$${VUMI_KILLS_REDIS:-0..2000} VUMI_LIVES_REDIS=$${VUMI_LIVES_REDIS:-0..2000} cargo test --release -p vumi-core --lib whatever_operation_of_redis -- --nocapture

check: fmt lint ## Formatting and lints

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	# Not among all targets, since it is no test of the workspace; of all packages, or dependencies would be checked again.
	cargo clippy --workspace --all-features --test e2e -- -D warnings

crds: ## Write deploy/crds from the types
	cargo run -q -p vumi -- crds --out deploy/crds

crds-check: ## Apply all CRDs to a real API server, which alone can tell what their rules cost
	@scripts/setup test
	scripts/test --workspace --all-features --test contract -- the_api_server_and_the_reader_agree

docs: ## Write docs/reference from the types, docs/man from the commands
	cargo run -q -p vumi -- docs --out docs/reference --man docs/man
	cargo run -q -p kubectl-vumi -- man --out docs/man

bench: ## Measure ratios against a bare client in the same run
	@scripts/setup bench
	cargo build --release -p vumi-bench
	# Alone, so that it has the features that are shipped and not those of the bench.
	cargo build --release -p vumi
	target/release/vumi-bench $(BENCH_ARGS)

bench-operator: ## Measure the operator with 1 000 and 5 000 resources on a real API server
	@scripts/setup test
	cargo build --release -p vumi-bench
	cargo build --release -p vumi-operator
	target/release/vumi-bench operator $(BENCH_ARGS)

deny: ## Check licences and sources of all dependencies, and known vulnerabilities where their list can be reached
	scripts/deny

clean: ## Remove build output
	cargo clean
