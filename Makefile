# The door to this project. `make` alone lists what there is.
#
# Everything is built by cargo, in target/ or where CARGO_TARGET_DIR says.

# Tools that the tests and the linters installed come first.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

# For cargo, on every command: CARGO_FLAGS=--locked refuses to change Cargo.lock.
CARGO_FLAGS ?=
# Where cargo builds. What was built together is run from there: `cargo run` of one would build it anew, with the features it alone asks for.
BUILT = $(or $(CARGO_TARGET_DIR),target)
# For the program that is run: make run ARGS="--help"
ARGS ?=

.PHONY: help run load image test test-k8s test-faults fuzz bench bench-quick lint fmt

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build and start the whole store in one process: public API on 127.0.0.1:50051, data in ./data
	cargo run $(CARGO_FLAGS) --release -p tao -- dev $(ARGS)

load: ## load an edge list into a running store: make load FILE=edges.txt TYPE=follows
	$(if $(and $(FILE),$(TYPE)),,$(error say what to load: make load FILE=edges.txt TYPE=follows))
	cargo run $(CARGO_FLAGS) --release -p tao -- load --type "$(TYPE)" $(ARGS) "$(FILE)"

image: ## build the container image with docker, podman or buildah: make image IMAGE=registry.example/tao:0.1.0
	@tests/tools/build_image.sh "$(or $(IMAGE),docker.io/library/tao:dev)"

test: ## install what the tests need where it is absent, then run all of them
	@tests/tools/install.sh tests
	@tests/tools/test.sh $(CARGO_FLAGS)

test-k8s: ## bring up a real Kubernetes in a network namespace, apply the manifests and disturb them (Linux, root)
	@tests/tools/k8s.sh $(CARGO_FLAGS)

test-faults: ## break real processes under load and judge what they answered: make test-faults SECONDS=600 SEED=7
	@tests/tools/install.sh tests
	cargo build $(CARGO_FLAGS) -p tao -p tao-rig --bins
	$(BUILT)/debug/tao-rig faults --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: ## run the fuzz targets: make fuzz RUNS=10000000 TARGETS="token pipeline"
	@tests/tools/install.sh fuzz
	@tests/tools/fuzz.sh $(or $(RUNS),100000) $(TARGETS)

bench: ## measure this store beside what one would build instead, all of it: hours; make bench ARGS="full --minutes 30", or another subcommand
	@tests/tools/install.sh tests
	cargo build $(CARGO_FLAGS) --release -p tao -p tao-bench
	$(BUILT)/release/tao-bench $(or $(ARGS),full)

bench-quick: ## what matters most of that, small, in three minutes: the last line is one JSON object
	@tests/tools/install.sh tests
	cargo build $(CARGO_FLAGS) --release -p tao -p tao-bench
	$(BUILT)/release/tao-bench quick $(ARGS)

lint: ## formatting, protos, scripts, dependencies and clippy, warnings being errors; the quick ones first
	@tests/tools/install.sh lint
	cargo fmt --all --check
	buf lint
	shellcheck .ci/run tests/tools/*.sh tests/tools/images/*/*.sh examples/*/generate.sh
	cargo deny $(CARGO_FLAGS) check --hide-inclusion-graph bans licenses sources
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

fmt: ## format all Rust code
	cargo fmt --all
