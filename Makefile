# Everything from a bare checkout: Python >= 3.11, make and a C++ compiler are all that is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export SPLATSWEEP_HOME ?= $(CURDIR)/runs
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
unexport PYTHONDONTWRITEBYTECODE  # tests start hundreds of processes; each would compile our modules anew

.PHONY: help setup bytecode weights demo test test-fast soak image gpu lint format clean

help:          ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(VENV)/ready   ## create the virtual environment with the tested versions, and install splatsweep

$(VENV)/ready: pyproject.toml constraints.txt $(wildcard model/native/csrc/* model/native/csrc/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

# What pip would do at the end, without what nothing here imports.  Test processes that start at once would each compile
# the same modules.
bytecode: $(VENV)/bytecode

$(VENV)/bytecode: $(VENV)/ready
	$(BIN)/python -m compileall -q -j 0 -x '$(UNUSED)' $(VENV)/lib > /dev/null || true
	@touch $@

UNUSED := /tests?/|transformers/models|ray/(rllib|serve|llm)|torch/(_inductor|testing)
UNUSED := $(UNUSED)|/(databricks|fontTools|mypyc?|pip|pygments|setuptools|skimage|sympy/physics)/

weights: setup ## fetch the pretrained weights that demo and tests need
	$(BIN)/splatsweep weights fetch vgg16 alexnet efficientnet_lite0

demo: weights  ## plan, train, evaluate and report the preset `quick`
	$(BIN)/splatsweep run sweep/presets/quick.yaml

# Three files at once on two processors, since tests of killed nodes and servers wait as long as they compute.
test: weights bytecode  ## run all tests
	SPLATSWEEP_WEIGHTS="$(SPLATSWEEP_HOME)/weights" $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-fast: weights ## run the tests without Ray, servers and long training; two minutes
	SPLATSWEEP_WEIGHTS="$(SPLATSWEEP_HOME)/weights" $(BIN)/python -m pytest -m "not slow" -n 2

soak: weights  ## kill each process of a sweep, 20 times in all; half an hour
	SPLATSWEEP_WEIGHTS="$(SPLATSWEEP_HOME)/weights" $(BIN)/python tests/soak.py --rounds 20

IMAGE ?= cpu
image:         ## run an image's steps in a clean Debian root, without a container engine (IMAGE=cpu or cuda); as root
	docker/check-in-clean-root.sh --image $(IMAGE)

gpu:           ## run GPU tests, benchmarks and a killed sweep in six minutes; installs nothing
	$(or $(wildcard $(BIN)/python),$(PYTHON)) tests/gpu/check.py --out "$(SPLATSWEEP_HOME)/gpu"

lint: setup    ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## format and fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:         ## delete the environment and build products; runs/ stays
	rm -rf $(VENV) build *.egg-info model/*/*.so
