# Needs make and Python 3.11 (or later), nothing else: every target first builds its environment.

PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
JOBS ?= 2
DATA ?=

VENV := .venv
READY := $(VENV)/.ready
SPARK_READY := $(VENV)/.ready-spark
BIN := $(VENV)/bin
SOURCES := $(wildcard src tests examples benchmarks)
EXAMPLES := $(sort $(wildcard examples/*.py))

export MPLBACKEND := Agg

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help .venv demo test test-spark check format-check lint types doctest examples bench bench-spark format clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv: $(READY)  ## Create or update the environment in .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev,torch]'
	@touch $@

$(SPARK_READY): $(READY)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[spark,connect]'
	@touch $@

demo: $(READY)  ## Compare four algorithms on one data set and draw demo.png
	$(BIN)/hemiola compare breast_cancer --algorithms ssgd,model-averaging,bmuf,easgd \
		--workers 4 --rounds 300 --plot demo.png

# The order matters: cheap checks first, the tests and their summary last.
check: format-check lint types doctest examples test  ## Check everything, as CI does

format-check: $(READY)  ## Check the formatting
	$(BIN)/ruff format --check $(SOURCES)

lint: $(READY)  ## Check the style
	$(BIN)/ruff check $(SOURCES)

types: $(READY)  ## Check the types
	$(BIN)/mypy

doctest: $(READY)  ## Run the examples in docstrings
	$(BIN)/pytest --doctest-modules src --ignore-glob='*/engines/_spark_*.py' --ignore=src/hemiola/spark

examples: $(READY)  ## Run every script in examples/, shortened
	@set -e; for example in $(EXAMPLES); do \
		echo "$(BIN)/python $$example"; HEMIOLA_QUICK=1 $(BIN)/python $$example; \
	done

test: $(READY)  ## Run the tests, JOBS files at a time
	$(BIN)/pytest tests --ignore tests/spark -n $(JOBS) --dist loadfile --durations 30

test-spark: $(SPARK_READY)  ## Run the tests of engine spark (500 MB of packages, minutes)
	$(BIN)/pytest --doctest-modules tests/spark src/hemiola/engines/_spark_*.py src/hemiola/spark
	SPARK_REMOTE='local[4]' $(BIN)/pytest tests/spark/test_ml.py

bench: $(READY)  ## Measure rounds, servers, threads and networks, beside their peers
	$(BIN)/python benchmarks/rounds_per_second.py
	$(BIN)/python benchmarks/server_throughput.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python benchmarks/peers.py $(if $(DATA),--data $(DATA))
	$(BIN)/python benchmarks/ddp.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/networks.py --engine serial $(if $(DATA),--data $(DATA))

bench-spark: $(SPARK_READY)  ## Measure rounds on Spark, and seconds beside MLlib
	$(BIN)/python benchmarks/spark_rounds.py
	$(BIN)/python benchmarks/spark_mllib.py $(if $(DATA),--data $(DATA))

format: $(READY)  ## Format the code and sort its imports
	$(BIN)/ruff check --select I --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:  ## Remove what was generated, except the environment
	rm -rf build dist demo.png .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) -type d -name __pycache__ -prune -exec rm -rf {} +
