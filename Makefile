# Everything from a bare checkout: Python >= 3.11, make and a C++ compiler are all that is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export SPLATSWEEP_HOME ?= $(CURDIR)/runs
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup weights demo test test-fast soak image gpu lint format clean

help:          ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(VENV)/ready   ## create the virtual environment with the tested versions, and install splatsweep

$(VENV)/ready: pyproject.toml constraints.txt $(wildcard model/native/csrc/* model/native/csrc/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip --constraint constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

weights: setup ## fetch the pretrained weights that demo and tests need
	$(BIN)/splatsweep weights fetch vgg16 alexnet efficientnet_lite0

demo: weights  ## plan, train, evaluate and report the preset `quick`
	$(BIN)/splatsweep run sweep/presets/quick.yaml

