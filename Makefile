# What a fresh clone needs: Python ≥ 3.11, make and a C compiler.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
DEMO ?= .demo/pystdlib

.PHONY: setup demo test faults check bench test-gpu

# The tested versions; with GPTCLI_EXTRAS=dev,interop also what the tests open our files with.
EXTRAS ?= dev,interop
setup: $(VENV)/.installed-$(EXTRAS)

$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

demo: $(if $(wildcard $(BIN)/gptcli),,setup)
	$(BIN)/python recipes/demo.py $(DEMO)

test: setup
	$(BIN)/python -m pytest -m 'not faults and not gpu' -n 2

faults: setup
	$(BIN)/python -m pytest -m faults -n 2

check: setup
	$(BIN)/ruff check gptcli tests recipes
	$(BIN)/ruff format --check gptcli tests recipes
	$(BIN)/mypy --strict gptcli
	$(BIN)/python -m pytest tests/test_house.py

bench: setup
	$(BIN)/python tests/bench/stages.py .bench/stages
	$(BIN)/python tests/bench/corpus_peers.py .bench/corpus
	$(BIN)/python tests/bench/html_extraction.py
	$(BIN)/python tests/bench/near_duplicates.py
	$(BIN)/python tests/bench/corpus_memory.py .bench/memory
	$(BIN)/python tests/bench/tokenize_peers.py .bench/tokenize
	$(BIN)/python tests/bench/tokenizer_training.py .bench/tokenize/corpus/main
	$(BIN)/python tests/bench/packing.py
	$(BIN)/python tests/bench/pretrain_peers.py .bench
	$(BIN)/python tests/bench/shakespeare.py .bench/shakespeare
	$(BIN)/python tests/bench/eval_peers.py .bench/eval --limit 300
	$(BIN)/python tests/bench/generate_peers.py .bench

# Uses the Python, and the torch, that are there: CUDA builds differ from machine to machine.
test-gpu:
	$(PYTHON) -m pytest -m gpu
