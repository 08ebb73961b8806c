# MarginLab. `make` alone prints the targets.
#
#   PYTHON    the Python that the virtual environment is made from: 3.11, 3.12 or 3.13
#   LOCK      which file of locks/ to install: cpu or gpu
#   PIP_ARGS  more arguments for pip. On Linux the registry's torch brings CUDA; the small CPU wheel comes from PyTorch's own
#             index: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
#   VENV      where the virtual environment lives

PYTHON ?= python3
LOCK ?= cpu
PIP_ARGS ?=
VENV ?= .venv
PYTEST_ARGS ?=
ONLY ?=
LOCK_ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(LOCK)

.DEFAULT_GOAL := help
.PHONY: help demo install test test-kills test-cluster soak test-browser test-servers s3 lint bench audit locks

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=$(PYTHON)  LOCK=$(LOCK) (cpu or gpu)  PIP_ARGS=$(PIP_ARGS)  VENV=$(VENV)"

demo: install ## a whole study on synthetic knees, on this machine: search, confirmation, answer
	$(BIN)/marginlab run studies/demo.py

install: $(INSTALLED) ## make the virtual environment and install the locked versions (done once)

test: install ## the tests; every skipped one is listed with its reason (PYTEST_ARGS="-k margins" for some)
	$(BIN)/python -m pytest -n 2 -m "not kills and not browser and not servers and not hosts and not soak" $(PYTEST_ARGS)

test-kills: install ## a study on Ray and `prepare`, killed at the end of every epoch, at every write and at random moments (nine to twelve minutes)
	$(BIN)/python -m pytest -m kills tests/cluster tests/data tests/test_interrupted.py $(PYTEST_ARGS)

test-cluster: install s3 ## a Ray cluster of three hosts (network namespaces) that fail in many ways, root; ROUNDS=10 for other moments (some 14 minutes)
	$(BIN)/python -m pytest -m hosts tests/hosts $(PYTEST_ARGS)

soak: install ## studies on those hosts with a fault every minute, for 20 minutes, root; SOAK_H=2 for two hours: what leaks, what is lost?
	$(BIN)/python -m pytest -m soak tests/hosts/test_soak.py $(PYTEST_ARGS)

test-browser: install ## the links of marginlab ui in headless Chromium; screenshots in build/screenshots (needs chromium, chromedriver)
	$(BIN)/python -m pytest -m browser tests/browser $(PYTEST_ARGS)

test-servers: install s3 ## searches in PostgreSQL, tracking by a server with passwords, S3: all real (needs PostgreSQL's programs)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m servers tests/servers $(PYTEST_ARGS)

lint: install ## style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: install ## measure speed and memory and write BENCHMARKS.md (ONLY=losses for tests/benchmarks/bench_losses.py)
	PYTHONPATH=platform $(BIN)/python tests/benchmarks/run.py $(ONLY)

# The stamp is newer than everything that decides what is installed, so a second run does nothing. A venv has one lock: the
# other's stamp goes.
$(INSTALLED): locks/$(LOCK).txt pyproject.toml | $(BIN)/python
	@echo "Installing locks/$(LOCK).txt into $(VENV): once, and it takes some minutes."
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps $(PIP_ARGS) -r locks/$(LOCK).txt
	test ! -f locks/$(LOCK)-torch.txt || \
	  $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -r locks/$(LOCK)-torch.txt
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) --no-deps -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "MarginLab needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$( ($(PYTHON) -V) 2>/dev/null || echo not there)." \
	       "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Swift's packages are no concern of the program's: it has an environment of its own, and tests/s3.py starts it from there.
SWIFT_VERSION := 2.38.3
SWIFT := build/swift-$(SWIFT_VERSION)

s3: $(SWIFT)/bin/swift-proxy-server ## OpenStack Swift, the S3 server that tests start (done once)

$(SWIFT)/bin/swift-proxy-server:
	$(PYTHON) -m venv $(SWIFT)
	$(SWIFT)/bin/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) \
	  swift==$(SWIFT_VERSION) eventlet==0.41.3 pyeclib==1.8.0 xattr==1.3.0

AUDIT_VERSION := 2.10.1
AUDIT := build/pip-audit-$(AUDIT_VERSION)

audit: ## are locked versions known to be vulnerable? A warning where there is no network to ask
	@test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install \
	  --disable-pip-version-check --quiet pip-audit==$(AUDIT_VERSION); } || echo "WARNING: pip-audit could not be installed."
	@$(PYTHON) locks/audit.py $(AUDIT)/bin/pip-audit locks/gpu.txt

# uv resolves for all supported Pythons and platforms at once. Versions already locked are kept: LOCK_ARGS=--upgrade takes the
# newest of everything, LOCK_ARGS="--upgrade-package polars" of one. cpu.txt is gpu.txt without PyTorch and the CUDA packages.
# PyTorch for CPUs comes from one of several places, each with wheels of its own: its lock has a version and no hashes.
UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0
UV := build/uv-$(UV_VERSION)/bin/uv
CUDA := ^(nvidia-|cuda-|triton|torch==)

locks: $(UV) ## resolve pyproject.toml anew into locks/ (LOCK_ARGS=--upgrade for the newest versions)
	@mkdir -p locks && echo "torch==$(TORCH_VERSION)" > build/constraints.txt
	@test ! -f locks/gpu.txt || cp locks/gpu.txt build/lock.txt
	$(UV) pip compile pyproject.toml --universal --python-version 3.11 --extra dev --constraints build/constraints.txt \
	  --generate-hashes --no-header --annotation-style line --quiet --output-file build/lock.txt $(LOCK_ARGS)
	@$(call header,gpu,Everything for NVIDIA GPUs: PyTorch from PyPI with its CUDA packages) > locks/gpu.txt
	@cat build/lock.txt >> locks/gpu.txt
	@$(call header,cpu,Everything for machines without a GPU but PyTorch: the versions of gpu.txt less the CUDA packages) > locks/cpu.txt
	@awk '/^[a-z]/ { left = /$(CUDA)/ } !left' build/lock.txt >> locks/cpu.txt
	@$(call header,cpu-torch,PyTorch for machines without a GPU. No hashes: it comes from one of several places) > locks/cpu-torch.txt
	@grep -o '^torch==[^ ]*' build/lock.txt >> locks/cpu-torch.txt
	@grep -c '==' locks/cpu.txt locks/gpu.txt

define header
printf '%s\n' \
  '# $(2).' \
  '# Made by `make locks` (uv pip compile --universal) from pyproject.toml with its extra "dev", for Python 3.11-3.13.' \
  '# Remake: make locks; newest versions: make locks LOCK_ARGS=--upgrade. Do not edit by hand.'
endef

$(UV):
	$(PYTHON) -m venv build/uv-$(UV_VERSION)
	build/uv-$(UV_VERSION)/bin/python -m pip install --disable-pip-version-check --quiet uv==$(UV_VERSION)
