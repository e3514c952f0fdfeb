# `make search` and `make test` set everything up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SPACE  ?= search_spaces/lm.yaml

.PHONY: search ui replay test lint format fuzz audit bench docs clean help

help:
	@echo "make search   set up and run a search: SPACE=$(SPACE), or another of search_spaces/:"
	@echo "              $(notdir $(wildcard search_spaces/*.yaml))"
	@echo "make ui       compare its trials in MLflow"
	@echo "make replay   retrain its best trial and verify that it reproduces"
	@echo "make test     set up and run lint, types and all tests, or those of TESTS=tests/…"
	@echo "make docs     build the pages of docs/ into build/site"
	@echo "make format   format the code"
	@echo "make fuzz     read 2,000 mutations of each kind of file that others may have made"
	@echo "make audit    ask OSV for known vulnerabilities of what is installed; needs a network"
	@echo "make bench    measure training and searches beside others, and how their cost grows"

search: $(VENV)/.installed
	$(BIN)/tuner search --space $(SPACE)

ui: $(VENV)/.installed
	$(BIN)/tuner ui

replay: $(VENV)/.installed
	$(BIN)/tuner replay

LINT = $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

# Lint and types are checked while the tests run, and printed at the end. Threads without work
# sleep, because the tests keep all cores busy. Python keeps compiled modules, also where the
# environment forbids it: the tests start hundreds of processes, and each would compile them.
# No recipe names $(MAKE): `make --dry-run` would run it.
test: $(VENV)/.installed-dev $(VENV)/.system
	@{ $(LINT); } >$(VENV)/lint.log 2>&1 & lint=$$!; \
	PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive $(BIN)/pytest $(TESTS) -n auto \
	  --no-loadscope-reorder --durations 15; tests=$$?; \
	wait $$lint || tests=1; cat $(VENV)/lint.log; exit $$tests

lint: $(VENV)/.installed-dev
	$(LINT)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# 2,000 mutations of spaces and of every other kind of foreign file; the tests have the first 150.
fuzz: $(VENV)/.installed-dev
	TUNER_FUZZ=1 $(BIN)/pytest tests/tuner/commands/test_validate_mutations.py \
	  tests/model/test_foreign_files.py tests/e2e/test_record_mutations.py

# OSV also knows builds such as torch 2.13.0+cpu; without a network the target fails. pip-audit has an
# environment of its own, so that its dependencies are not among those that it asks for.
audit: $(VENV)/.installed
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --vulnerability-service osv --skip-editable \
	  --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/fusion.py --out docs/bench/fusion.cpu.json --plot docs/bench/fusion.cpu.png
	$(BIN)/python bench/search.py
	$(BIN)/python bench/search_quality.py replay
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/refill.py
	$(BIN)/python bench/order.py
	$(BIN)/python bench/makespan.py
	$(BIN)/python bench/tracking.py
	$(BIN)/python bench/report.py
	$(BIN)/python bench/stack.py
	$(BIN)/python bench/tokenizer.py
	$(BIN)/python bench/preparation.py
	$(BIN)/python bench/generation.py
	$(BIN)/python bench/scaling.py
	$(BIN)/python bench/transfer.py --out docs/bench/transfer.cpu.json --plot docs/bench/transfer.cpu.png
	$(BIN)/python bench/benchmarks_page.py

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

# Some tests need a browser, a Postgres database or nginx; without these they are skipped with a message.
# Only CI installs them without being asked.
$(VENV)/.system: $(VENV)/.made
	@command -v chromium >/dev/null && PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null \
	  && ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 \
	  || { [ -n "$$CI" ] && command -v apt-get >/dev/null && apt-get update -qq \
	       && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium postgresql nginx >/dev/null; } \
	  || { [ -z "$$CI" ] \
	       && echo "tests of pages and servers will be skipped: install chromium, postgresql and nginx"; }
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tuner needs Python 3.11 or newer; name one: make PYTHON=python3.12 …"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
