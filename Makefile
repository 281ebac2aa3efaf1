# The commands of this project. Each does the set-up it needs, in .venv, and once only.
#
#   make run     installs what requirements.lock names; a second start installs nothing
#   make test    adds requirements-dev.lock to the same .venv
#
# A stamp in .venv records each step that is done, and a step is done again when its inputs change.
# Every path is relative, so a checkout may stand in a directory with spaces in its name.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# How the compiled core is built: auto, yes or no (setup.py explains them).
COLLECTOR_NATIVE ?= auto
export COLLECTOR_NATIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
PY := $(VENV)/bin/python
PIP_LOCKED := $(PY) -m pip install --quiet --require-hashes --only-binary :all: -r
TWINS := collector/store/_packed collector/store/reading/_fields collector/sketch/_compiled
CORE_SOURCE := $(wildcard collector/engine/_core.pyx collector/engine/*.px[di] collector/engine/core/*.[ch] $(TWINS:=.pyx))
BUILT := collector/engine/_core*.so $(TWINS:=*.so)
CONFIG ?= config/collector.yaml

# The stamps, in their order.
MADE := $(VENV)/.made
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
INSTALLED := $(VENV)/.installed-$(COLLECTOR_NATIVE)

# A virtual environment names its own directory in its scripts and its interpreter by path: after a
# copy or a move of the checkout, or when that Python is gone, it is made again.
ifneq ($(shell test -x $(PY) && cat $(MADE) 2>/dev/null),$(CURDIR))
.PHONY: $(MADE)
endif

.PHONY: help
help: ## show this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12
	@echo "PYTHON=... chooses the Python of .venv; COLLECTOR_NATIVE=auto|yes|no the compiled core."

.PHONY: run
run: $(INSTALLED) ## run the collector with config/collector.yaml (CONFIG=... for another file)
	@exec $(VENV)/bin/collector run --config "$(CONFIG)" $(ARGS)

.PHONY: test
test: $(INSTALLED) $(DEV) ## run the tests (ARGS=... goes to pytest)
	$(PY) -m pytest -n auto $(ARGS)

.PHONY: clients
clients: $(MADE) ## install the clients that the tests use, each in an environment of its own
	$(PY) tests/clients/install.py

.PHONY: lint
lint: $(INSTALLED) $(DEV) ## check style and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

.PHONY: format
format: $(DEV) ## rewrite the code in the project's style
	$(PY) -m ruff check --fix --exit-zero
	$(PY) -m ruff format

.PHONY: bench
bench: $(INSTALLED) $(DEV) ## run the benchmarks (ARGS=... goes to them)
	$(PY) -m benchmarks $(ARGS)

.PHONY: fuzz
fuzz: $(MADE) ## fuzz the compiled core, and sketches, with clang, or replay the corpus with gcc (ARGS=600 for ten minutes each)
	$(PY) tests/fuzz/run.py $(ARGS)

.PHONY: asan
asan: $(INSTALLED) $(DEV) ## run the engine's tests over a core built with AddressSanitizer and UBSan (ARGS=... goes to pytest)
	$(PY) tests/sanitized.py address $(ARGS)

.PHONY: tsan
tsan: $(INSTALLED) $(DEV) ## the same with ThreadSanitizer, for the reader thread
	$(PY) tests/sanitized.py thread $(ARGS)

.PHONY: soak
soak: $(INSTALLED) $(DEV) ## hold the daemon to its promises under full load, for some minutes (ARGS=... names parts)
	$(PY) tests/soak.py $(ARGS)

.PHONY: chaos
chaos: $(INSTALLED) $(DEV) ## break connections and kill processes under load, and compare every series (ARGS=... names parts)
	$(PY) tests/chaos.py $(ARGS)

# uv lives in a throw-away environment: nothing else needs it. Versions in a lock stay as they are
# unless pyproject.toml forbids them; ARGS=--upgrade takes the newest of all.
.PHONY: lock
lock: $(MADE) ## write the lock files anew (ARGS=--upgrade for the newest versions)
	@set -eu; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PY) -m venv "$$scratch/uv"; \
	"$$scratch/uv/bin/pip" install --quiet uv; \
	$(PY) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make lock needs Python 3.11")'; \
	$(PY) -c 'import pathlib, tomllib; print(*tomllib.loads(pathlib.Path("pyproject.toml").read_text())["build-system"]["requires"], sep="\n")' > "$$scratch/build-system"; \
	compile() { "$$scratch/uv/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command "make lock" $(ARGS) "$$@" "$$scratch/build-system" pyproject.toml; }; \
	compile -o requirements.lock; \
	compile -o requirements-dev.lock --all-extras -c requirements.lock

.PHONY: clean
clean: ## remove .venv and everything that was built
	rm -rf $(VENV) .clients build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f collector/engine/_core.c $(TWINS:=.c) $(BUILT)
	find collector tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The set-up.

# A name on PATH proves nothing (pyenv has stand-ins that fail; Debian splits venv off), so each
# candidate is run. `python3` comes first: it is the one that the operator chose for the machine.
$(MADE):
	@for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "setting up $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv --clear $(VENV) && pwd -P > $@; exit; \
		fi; \
	done; \
	echo "No suitable Python: collector needs Python 3.11 or newer, with its venv module." >&2; \
	echo "Looked at: $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11)." >&2; \
	echo "Install one (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python" >&2; \
	exit 1

$(RUNTIME): requirements.lock $(MADE)
	@echo "installing the runtime's dependencies"
	@$(PIP_LOCKED) requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	@echo "installing the dependencies of tests and linters"
	@$(PIP_LOCKED) requirements-dev.lock
	@touch $@

# Editable: the code is read from the checkout. pip hides what the build says, so a core that could
# not be built is told here once more.
$(INSTALLED): pyproject.toml setup.py $(CORE_SOURCE) $(RUNTIME)
	@echo "installing collector"
	@rm -f $(VENV)/.installed-* $(BUILT)
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@test "$(COLLECTOR_NATIVE)" = no || ls collector/engine/_core*.so >/dev/null 2>&1 || \
		echo "collector: no compiled core, the pure-Python engine is used (COLLECTOR_NATIVE=yes shows why)"
	@touch $@
