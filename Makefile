PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# One worker more than processors: tests also wait for the commands and workers that they start.
TEST_WORKERS = $(shell $(BIN)/python -c 'from eo_keras.core.processors import worker_count; print(min(4, worker_count() + 1))')

# Tests start a hundred commands, each of which would compile the package's modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs test test-real lint bench-peers clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(INSTALLED): setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,beam]'
	touch $@

demo: $(INSTALLED)  ## install and run the whole way on a small generated data set
	@started=$$(date +%s); echo '$(BIN)/python -m launch.demo --overwrite'; $(BIN)/python -m launch.demo --overwrite && \
		echo "demo: $$(($$(date +%s) - started)) s, without the installation"

docs: $(INSTALLED)  ## the documentation as HTML in build/docs; warnings are errors
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

test: $(INSTALLED)  ## lint, documentation, and all but the slow tests, several modules at a time
	$(MAKE) --no-print-directory --jobs=2 lint docs
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_WORKERS) --dist=loadfile --no-loadscope-reorder

test-real: $(INSTALLED)  ## all tests, the slow ones and those on the real data too
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## ruff's linter and formatter, the layers of the packages, words, and who compares tasks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m tests.harness.wording
	$(BIN)/python -m tests.harness.task_names

bench-peers: .venv-peers/.installed  ## install what the benchmarks compare with, apart from the package (10 GB)

.venv-peers/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

clean:  ## remove the virtual environments and caches
	rm -rf .venv .venv-peers .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
