# Needs make and Python 3.11 or newer; `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# A copy of the lock that is installed there: the environment is made anew when the lock has changed.
ENVIRONMENT := .venv/requirements.txt
# pip installs from these files as well, but only if they name the extras that packages ask of each other: pip 23 takes coverage[toml]
# for something else than coverage, and the newest release of it.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url \
	--no-annotate --custom-compile-command "make lock"
# The tests that run once more as if aiohttp had changed: those of both ends of a connection.
DOCUMENTED := tests/proxy tests/gateway/test_workers.py tests/resumable/test_endings.py tests/shared/test_sharing.py \
	tests/shared/test_upstream.py tests/shared/test_upstream_loss.py

define CHECK_PYTHON
import sys
here = "%s is Python %s" % (sys.executable, sys.version.split()[0])
if sys.version_info < (3, 11):
    sys.exit("Python 3.11 or newer is needed, %s: install one and name it, as in `make run PYTHON=python3.13`" % here)
try:
    import ensurepip, venv
except ImportError as error:
    sys.exit("%s, without the module %s: install it (Debian and Ubuntu: apt install python3-venv), or name another Python with PYTHON="
             % (here, error.name))
endef
export CHECK_PYTHON

.PHONY: help run check test canary soak fuzz lint format lock bench clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

$(ENVIRONMENT): FORCE
	@cmp -s tests/requirements.txt $@ || { \
	{ command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, $(PYTHON) is not there: install it, or name one with PYTHON=" >&2; \
	exit 1; }; } && \
	$(PYTHON) -c "$$CHECK_PYTHON" && \
	echo "making the environment .venv" && \
	$(PYTHON) -m venv --clear .venv && \
	install/packages $(BIN)/python tests/requirements.txt && \
	cp tests/requirements.txt $@; }
FORCE:

run: $(ENVIRONMENT) ## run producer, gateway and consumer here until Ctrl-C; data goes below ./data
	@PYTHONUNBUFFERED=1 $(BIN)/honcho start

check: lint ## check in a minute: lint, types, import rules, unit tests
	$(BIN)/python -m pytest -m unit -n auto --no-header -q

test: lint ## check everything: lint, types, import rules, every test, those of endurance for some seconds each
	$(BIN)/python -m pytest tests/eventstream -rfEs --cov=eventstream --cov-fail-under=100
	$(BIN)/python -m pytest --ignore tests/eventstream -n 4 --dist loadscope --no-loadscope-reorder -rfEs
	$(BIN)/python -m pytest $(DOCUMENTED) --documented-aiohttp -n 4 --dist loadscope --no-loadscope-reorder -rfEs
	$(BIN)/python -m pytest -m "soak and not fuzz and not rust" --ignore tests/soak/test_siege.py -n 2 -rfEs

canary: $(ENVIRONMENT) ## run the tests with the newest release of every direct dependency, and say what broke
	$(BIN)/python -m tests.canary

soak: $(ENVIRONMENT) ## run the tests of endurance for SOAK_SECONDS each (600); SOAK_SEED decides as an earlier run did
	SOAK_SECONDS=$${SOAK_SECONDS:-600} $(BIN)/python -m pytest -m "soak and not fuzz" -o log_cli=true -o log_cli_level=INFO

fuzz: $(ENVIRONMENT) ## feed random bytes to all that reads foreign ones, SECONDS_EACH (600); FUZZ_SEED decides as an earlier run did
	FUZZ_SECONDS=$${SECONDS_EACH:-600} $(BIN)/python -m pytest tests/fuzz -m fuzz -o log_cli=true -o log_cli_level=INFO

lint: $(ENVIRONMENT) ## check style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(ENVIRONMENT) ## mend style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(ENVIRONMENT) ## write the requirements.txt files anew from pyproject.toml, keeping versions that still fit
	@for group in producer gateway consumer install; do $(LOCK) --group $$group -o $$group/requirements.txt || exit 1; done
	@$(LOCK) --group dev -o tests/requirements.txt

bench: $(ENVIRONMENT) ## measure against the proxies that are installed
	$(BIN)/python -m bench

clean: ## remove the environment and caches; ./data stays
	rm -rf .venv .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
