# Everything that is done with this tree starts here; `make` alone tells what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
KAFKA_PORT ?= 9092
ARGS ?=
# Half of the time of the whole suite is waiting for brokers, so one process per core takes the files in turn (tests/conftest.py says how many).
SHARED := --numprocesses auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test simulate check bench chaos kafka kafka-stop lock clean

help: ## this list
	@echo 'streamapp: one verdict per event, on an event bus'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=python3.12  another interpreter (3.11 or newer)    ARGS="..."  passed on to demo, test, simulate, bench, chaos'

setup: $(VENV)/.program ## make .venv with the program in it, at the locked versions

demo: $(VENV)/.program ## broker, worker and generator on this machine, with a live view; no Java, no Docker
	@$(BIN)/streamapp demo $(ARGS)

test: $(VENV)/.development ## all tests that need nothing but Python; those on Kafka and Redis say why they are skipped
	@$(BIN)/python -m pytest $(SHARED) $(ARGS)

simulate: $(VENV)/.development ## the delivery under faults, in virtual time: thousands of seeds; ARGS="--seed N" replays one
	@$(BIN)/python -m tests.simulation.run $(ARGS)

check: $(VENV)/.development ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet streamapp tests bench chaos examples || { echo 'some files are not formatted; run: $(BIN)/ruff format streamapp tests bench chaos examples' >&2; exit 1; }
	@$(BIN)/mypy

bench: $(VENV)/.development ## the benchmarks in one run, with ratios; on Kafka: make kafka, then ARGS="--bootstrap 127.0.0.1:9092"
	@$(BIN)/python bench/run.py $(ARGS)

chaos: $(VENV)/.development ## kill, stop and starve real workers on a real Kafka, 20 rounds of each kind, and recount; ARGS="--short" for minutes
	@$(BIN)/python -m chaos $(ARGS)

kafka: ## start one Apache Kafka node on loopback (Java 17, Maven); KAFKA_PORT=9092
	@ops/kafka/kafka start --port $(KAFKA_PORT)

kafka-stop: ## stop it again; its data stays under .kafka/
	@ops/kafka/kafka stop --port $(KAFKA_PORT)

lock: ## write requirements.lock anew: the newest versions that pyproject.toml allows, as installed in a fresh environment
	@scratch=$$(mktemp -d) && trap 'rm -rf "$$scratch" build' EXIT && $(PYTHON) -m venv "$$scratch" \
	&& "$$scratch/bin/python" -m pip --quiet --disable-pip-version-check install '.[train,dev]' \
	&& { echo '# Exact versions of everything that runs, tests and trains streamapp. Made by `make lock`; installs take it as constraints.'; \
	     "$$scratch/bin/python" -m pip freeze --exclude streamapp; } > requirements.lock
	@git --no-pager diff --stat -- requirements.lock

clean: ## remove the environment and every cache; not Kafka's jars and data under .kafka/
	@rm -rf $(VENV) build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo 'setup: $(PYTHON) is not here; install Python 3.11 or newer, or name one: make setup PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "setup: $$($(PYTHON) --version) is too old; 3.11 or newer is needed: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo 'setup: $(PYTHON) comes without venv; install it (Debian: apt-get install python3-venv)' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.program: $(VENV)/bin/python pyproject.toml requirements.lock
	@echo 'setup: installing the locked versions into $(VENV)'
	@$(PIP) install --constraint requirements.lock --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.program
	@echo 'setup: adding what tests and training need'
	@$(PIP) install --constraint requirements.lock --editable '.[train,dev]'
	@touch $@
