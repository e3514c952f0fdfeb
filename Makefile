# `make search` and `make test` set everything up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SPACE  ?= search_spaces/lm.yaml

.PHONY: search ui replay test lint format fuzz mutants audit bench bench-rehearsal docs release clean help

help:
	@echo "make search   set up and run a search: SPACE=$(SPACE), or another of search_spaces/:"
	@echo "              $(notdir $(wildcard search_spaces/*.yaml))"
	@echo "make ui       compare its trials in MLflow"
	@echo "make replay   retrain its best trial and verify that it reproduces"
	@echo "make test     set up and run lint, types and all tests, or those of TESTS=tests/…"
	@echo "make docs     build the pages of docs/ into build/site"
	@echo "make format   format the code"
	@echo "make fuzz     read 2,000 mutations of each kind of file that others may have made"
	@echo "make mutants  plant 100 small changes in copies of the code, and list those that no fast test notices"
	@echo "make audit    ask OSV for known vulnerabilities of what is installed; needs a network"
	@echo "make release  build wheel and sdist, and do what the README says with each, on two versions of Python"
	@echo "make bench    measure training and searches beside others, and what they cost, for hours"
	@echo "make bench-rehearsal   run the quick mode of each of these measurements, for minutes"

search: $(VENV)/.installed
	$(BIN)/tuner search --space $(SPACE)

ui: $(VENV)/.installed
	$(BIN)/tuner ui

replay: $(VENV)/.installed
	$(BIN)/tuner replay

LINT = $(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

# Lint and types are checked while the tests run, and printed at the end. NumPy takes one thread and
# OpenMP's threads without work sleep, because the tests keep all cores busy. Python keeps compiled modules, also where the
# environment forbids it: the tests start hundreds of processes, and each would compile them.
# No recipe names $(MAKE): `make --dry-run` would run it.
test: $(VENV)/.installed-dev $(VENV)/.system
	@{ $(LINT); } >$(VENV)/lint.log 2>&1 & lint=$$!; \
	PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 $(BIN)/pytest $(TESTS) -n auto \
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

# Some rooms of the code; `tests/mutation.py --help` says how to name others, or another checkout.
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/mutation.py

# OSV also knows builds such as torch 2.13.0+cpu; without a network the target fails. pip-audit has an
# environment of its own, so that its dependencies are not among those that it asks for.
audit: $(VENV)/.installed
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --vulnerability-service osv --skip-editable \
	  --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# Some hours on two cores. `bench/gpu.py --help` says how to measure a GPU.
RESULT = --out docs/bench/$(1).cpu.json
bench: $(VENV)/.installed-dev
	$(BIN)/python bench/fusion.py $(call RESULT,fusion) --plot docs/bench/fusion.cpu.png
	$(BIN)/python bench/makespan.py $(call RESULT,makespan) --plot docs/bench/makespan.cpu.png
	$(BIN)/python bench/search_quality.py replay
	$(BIN)/python bench/search_quality.py replay --study curves
	$(BIN)/python bench/search_quality.py left
	$(BIN)/python bench/transfer.py $(call RESULT,transfer) --plot docs/bench/transfer.cpu.png
	$(BIN)/python bench/overhead.py $(call RESULT,overhead)
	$(BIN)/python bench/load.py $(call RESULT,load)
	$(BIN)/python bench/stack.py $(call RESULT,stack)
	$(BIN)/python bench/lora.py $(call RESULT,lora)
	$(BIN)/python bench/serve.py $(call RESULT,serve)
	$(BIN)/python bench/pages.py $(call RESULT,pages)
	$(BIN)/python bench/tokenizer.py $(call RESULT,tokenizer) --plot docs/bench/tokenizer.cpu.png
	$(BIN)/python bench/benchmarks_page.py

# The quick modes of all benches, also on a machine without a GPU; the tests run one of them, in turn.
bench-rehearsal: $(VENV)/.installed-dev
	TUNER_REHEARSAL=all $(BIN)/pytest tests/e2e/test_bench_rehearsal.py

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

# Publishes nothing: wheel and sdist are in dist/. PIP=… is an argument of pip, such as an index for torch.
release: $(VENV)/.installed-dev
	$(BIN)/python tests/release.py $(addprefix --pip=,$(PIP))

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
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip  # resolves in half the time
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

# Of 24,000 modules the tests import 5,000, which Python compiles then: half a minute less.
$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.made
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
