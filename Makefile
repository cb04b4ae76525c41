# ContextWorker. `make help` lists what there is to make.

PYTHON ?= python3
# The interpreter below an activated environment: that environment may be the very one that is made anew.
BASE = $(shell $(PYTHON) -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
BIN := .venv/bin
INSTALLED := .venv/.installed
READY := .venv/.ready
# An environment of the caller's own must not leak into ours.
unexport PYTHONPATH
unexport PYTHONHOME
# Tests start servers from processes in which gRPC runs: its handlers for a fork crash the child now and then.
export GRPC_ENABLE_FORK_SUPPORT := 0

.DEFAULT_GOAL := help
.PHONY: help setup run test test-chaos test-polyglot generate lint format types check check-generated check-sync-client check-contract release-contract conformance bench lock build clean mutants

help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with everything that is pinned in requirements.txt.

# pip of the interpreter at hand installs into .venv, so no pip is needed (nor copied) there.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up .venv (once, about a minute) …"
	@base="$(BASE)" && "$$base" -m pip --version >/dev/null || { echo "$$base has no pip; install it, or name another Python: make PYTHON=…"; exit 1; }
	@base="$(BASE)" && "$$base" -m venv --clear --without-pip .venv \
	  && "$$base" -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt
	@touch $@

# The install is editable, but for the codec's extension, which it compiles; see hatch_build.py.
$(READY): $(INSTALLED) hatch_build.py $(wildcard src/betterproto2_codec/_wire*.p[xy][xi])
	@base="$(BASE)" && "$$base" -m pip --python $(BIN)/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'from betterproto2_codec._schema import IS_NATIVE as n; print("codec: compiled" if n else "codec: by google.protobuf alone; with a C compiler and the headers of Python it is compiled, and several times faster")'
	@touch $@

run: $(READY) ## Harvest a supplier's catalogue, end to end, with everything started and stopped for you.
	@$(BIN)/python -m contextunity.modules.harvest

test: $(READY) ## Run the tests.
	@$(BIN)/python -m pytest -n 3 --dist loadgroup

test-chaos: $(READY) ## Run the tests that take minutes, or much of the machine.
	@$(BIN)/python -m pytest -m chaos

test-polyglot: $(READY) ## Build the callers in clients/ from their registries, and run them against a service.
	@$(BIN)/python -m pytest -m polyglot tests/clients

# What comes behind is handed on: make mutants MUTANTS="service --count 100".
mutants: $(READY) ## Change the source in one place at a time, and see whether a test fails.
	@$(BIN)/python tools/mutants.py $(MUTANTS)

generate: export PATH := $(CURDIR)/$(BIN):$(PATH)
generate: $(READY) ## Write gen/ and docs/contracts/ anew from proto/, docs/reference/ and deploy/ from the code.
	@$(BIN)/python tools/third_party_protos.py .build/protos
	@$(BIN)/buf generate
	@$(BIN)/python tools/access_reference.py
	@$(BIN)/python tools/contract_rules_reference.py
	@$(BIN)/python tools/metrics_reference.py
	@$(BIN)/python tools/monitoring.py
	@$(BIN)/python tools/sync_client.py

format: $(READY) ## Format Python and proto files.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/buf format --write proto

lint: $(READY) ## Check the style of Python and proto files.
	@$(BIN)/python tools/third_party_protos.py .build/protos
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/buf format --diff --exit-code proto
	@$(BIN)/buf lint

types: $(READY) ## Check the types, strictly, with mypy and pyright.
	@$(BIN)/mypy
	@$(BIN)/pyright --warnings

check-generated: check-sync-client generate ## Fail where gen/ is not what proto/ gives, or docs/reference/ or deploy/ not what the code gives.
	@git diff --exit-code --stat -- gen docs/contracts docs/reference deploy/grafana deploy/prometheus && test -z "$$(git status --porcelain -- gen docs/contracts docs/reference deploy/grafana deploy/prometheus)" || { git status --short -- gen docs/contracts docs/reference deploy/grafana deploy/prometheus; echo "gen/, docs/ or deploy/ differs from what proto/ and the code give; commit what 'make generate' wrote"; exit 1; }

check-sync-client: $(READY) ## Fail where the client for threads is not what that for asyncio gives.
	@$(BIN)/python tools/sync_client.py --check

check-contract: $(READY) ## Fail where proto/ breaks the contract as last released.
	@$(BIN)/python tools/third_party_protos.py .build/protos
	@$(BIN)/contextworker contract check

release-contract: $(READY) ## Make proto/ the released contract, where nothing breaks.
	@$(BIN)/python tools/third_party_protos.py .build/protos
	@$(BIN)/contextworker contract release

conformance: $(READY) ## Run Google's conformance tests on the codec and Connect's on HTTP, where their runners can be had.
	@$(BIN)/python tools/conformance.py
	@$(BIN)/python tools/connect_conformance.py

check: lint types check-generated check-contract test ## Everything that CI runs, but for the conformance tests and callers in other languages.

# The names of benchmarks behind `bench` are goals to make as well; only beside it do they mean anything.
BENCHMARKS := $(basename $(notdir $(filter-out bench/_%,$(wildcard bench/*.py))))
.PHONY: $(BENCHMARKS)
bench: $(READY) ## Measure, with peers in the same run; `make bench fairness` just what is named.
	@$(BIN)/python -m bench $(filter-out bench,$(MAKECMDGOALS))

$(BENCHMARKS):
	@$(if $(filter bench,$(MAKECMDGOALS)),:,echo "make bench $@ measures it"; exit 1)

lock: $(READY) ## Pin the newest versions that pyproject.toml allows into requirements.txt.
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --all-extras --group dev pyproject.toml --output-file requirements.txt

build: $(READY) ## Build the wheel and the source distribution into dist/.
	@$(BIN)/hatchling build

clean: ## Remove what was made, the environment and the local databases included.
	@rm -f src/betterproto2_codec/_wire*.so
	@rm -rf .venv .build .contextworker .hypothesis .mypy_cache .pytest_cache .ruff_cache dist bench/results
	@rm -rf clients/*/protos clients/*/gen clients/*/target clients/*/dist clients/*/node_modules clients/*/.venv clients/go/harvester
	@find src gen tests tools bench -type d -name __pycache__ -prune -exec rm -rf {} +
