# Everything by name: `make setup`, `make demo`, `make test`. Every target sets up by itself.
# Variables: PYTHON (interpreter for .venv), INSTRUCTION (make demo), EPISODES, SEED (make eval),
# ARGS (appended to demo, test, eval and bench).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
EPISODES ?= 50
SEED ?= 10000
INSTRUCTION ?=
ARGS ?=
export INSTRUCTION

BIN := .venv/bin
STAMPS := .venv/.stamps
CONFIG := config/train
RUNS := runs
CHECKPOINT := faster_core/assets/checkpoints/r1_lite_demo

# Stamps carry a hash of what they were made from: a checkout that touches files without changing
# them rebuilds nothing, and a changed interface rebuilds the message package only.
hash = $(shell cat $(sort $(1)) 2>/dev/null | sha256sum | cut -c1-16)
MSGS_FILES := $(wildcard faster_vla_msgs/*.* faster_vla_msgs/cmake/* faster_vla_msgs/msg/* \
                faster_vla_msgs/srv/* faster_vla_msgs/action/*)
DEPS_STAMP := $(STAMPS)/deps-$(call hash,constraints.txt setup.py)
MSGS_STAMP := $(STAMPS)/msgs-$(call hash,$(MSGS_FILES) constraints.txt)
TORCH_STAMP := $(STAMPS)/torch-$(shell sed -n 's/^torch==//p' constraints.txt)
READY := $(DEPS_STAMP) $(MSGS_STAMP)

PIP := $(BIN)/python -m pip --disable-pip-version-check
PIP_INSTALL := $(PIP) install -qq -c constraints.txt --build-constraint constraints.txt
# The wheels' start-up code must run anew in this environment, whatever the caller's had done.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: help setup demo test test-slow lint format train-demo compare-tokenizers eval bench data \
        matrix reliability clean

help:
	@echo 'make setup       system packages (as root), .venv, torch, ROS 2 wheels, message package'
	@echo 'make demo        simulated R1 Lite carries out INSTRUCTION through ROS 2; files in out/'
	@echo 'make test        fast tests            make test-slow   the slow ones'
	@echo 'make lint        ruff check and format make format      let ruff repair'
	@echo 'make train-demo  demonstrations, tokenizer and policy of the shipped checkpoint'
	@echo 'make compare-tokenizers   the shipped tokenizers and their rivals, hours; first train-demo'
	@echo '                 and the recordings of docs/data.md'
	@echo 'make matrix      tests on every Python found, and with Kilted and Jazzy (docs/matrix.md)'
	@echo 'make reliability the measurements of docs/reliability.md, hours on a machine of their own'
	@echo 'make eval        closed loop without ROS: EPISODES per instruction from SEED'
	@echo 'make bench       latency of the policy alone'
	@echo 'make data        motions of Meta-World and gym-aloha, for tokenizers'

# --- set-up ---------------------------------------------------------------------------------

setup: $(READY)

$(STAMPS)/venv:
	@scripts/system_packages.sh '$(PYTHON)'
	test -x $(BIN)/python || '$(PYTHON)' -m venv .venv
	$(PIP) install -qq "$$(grep '^pip==' constraints.txt)"
	@mkdir -p $(STAMPS) && touch $@

$(TORCH_STAMP): | $(STAMPS)/venv
	$(PIP_INSTALL) torch
	@rm -f $(STAMPS)/torch-* && touch $@

$(DEPS_STAMP): | $(TORCH_STAMP)
	$(PIP_INSTALL) -e '.[sim,train,lora,data,jerk,openvino,remote,ros,test]'
	$(PIP_INSTALL) --no-deps metaworld   # it asks for one old MuJoCo and runs on ours
	@rm -f $(STAMPS)/deps-* && touch $@

$(MSGS_STAMP): | $(DEPS_STAMP)
	@echo 'building faster_vla_msgs (about a minute) ...'
	$(PIP_INSTALL) --force-reinstall --no-deps ./faster_vla_msgs
	@rm -f $(STAMPS)/msgs-* && touch $@

# --- use ------------------------------------------------------------------------------------

demo: $(READY)
	@$(BIN)/faster-vla demo $${INSTRUCTION:+--instruction "$$INSTRUCTION"} $(ARGS)

eval: $(READY)
	@$(BIN)/faster-vla eval r1lite_wbc --episodes $(EPISODES) --seed $(SEED) --json $(ARGS)

bench: $(READY)
	@$(BIN)/faster-vla bench --json $(ARGS)

# Motions of the simulators; recordings want --input (docs/data.md).
data: $(READY)
	$(BIN)/faster-vla data prepare metaworld --out $(RUNS)/data/metaworld
	$(BIN)/faster-vla data prepare aloha --out $(RUNS)/data/aloha

# --- checks ---------------------------------------------------------------------------------

# pytest's closing line comes last. Who runs what: test/workers.py.
test: $(READY)
	@$(BIN)/python -m pytest --numprocesses 2 $(ARGS)

test-slow: $(READY)
	@$(BIN)/python -m pytest -m 'slow or bench' --timeout 1800 -o faulthandler_timeout=3600 $(ARGS)

# ARGS: cells, e.g. 3.11-jazzy; --prepare only makes environments. Tests the last commit.
matrix:
	@scripts/system_packages.sh '$(PYTHON)'
	@'$(PYTHON)' scripts/matrix $(ARGS)

# Hours; the figures are worth something only if nothing else runs. A measurement that misses its
# target ends with 1: the others run all the same, and the documentation shows what was found.
# "jitter --fifo 5" (and at 200 Hz) needs the right to real-time priorities and is left out without.
RELIABILITY := docs/results/reliability
reliability: $(READY)
	@missed=; \
	measure() { \
	    local what="$$1$${3:+ $${*:3}}"; \
	    echo "measuring: $$what"; \
	    $(BIN)/python -m scripts.reliability."$$1" "$${@:3}" --json $(RELIABILITY)/"$$2".json \
	        > /dev/null || missed="$$missed, $$what"; \
	}; \
	measure motion_quality motion; \
	measure fuzz fuzz; \
	measure fuzz_dds fuzz_dds; \
	measure failures failures; \
	measure failures failures_arms --robot aloha; \
	measure overhead overhead; \
	measure overhead overhead_500 --state-rate 500; \
	measure jitter jitter; \
	if chrt -f 5 true 2> /dev/null; then \
	    measure jitter jitter --fifo 5; \
	    measure jitter jitter --rate 200 --fifo 5; \
	else echo 'left out: jitter --fifo 5, no right to real-time priorities'; fi; \
	measure soak soak; \
	$(BIN)/python scripts/render_docs.py || missed="$$missed, render_docs"; \
	if [ -n "$$missed" ]; then echo "missed or failed: $${missed#, }" >&2; exit 1; fi

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- the shipped checkpoint from nothing ------------------------------------------------------

# Each command resumes by itself; runs/ may be deleted to start over.
train-demo: $(READY)
	$(BIN)/faster-vla demos collect $(CONFIG)/r1_lite_demos.yaml --out $(RUNS)/demos
	$(BIN)/faster-vla tokenizer train $(CONFIG)/r1_lite_tokenizer.yaml \
	    --data $(RUNS)/demos --out $(RUNS)/tokenizer
	$(BIN)/faster-vla policy train $(CONFIG)/r1_lite_policy.yaml \
	    --demos $(RUNS)/demos --tokenizer $(RUNS)/tokenizer --out $(RUNS)/policy
	@echo 'done; to ship it: cp -r $(RUNS)/policy/checkpoint/. $(CHECKPOINT)/'

# --- the shipped tokenizers and their comparison ----------------------------------------------

# Needs demonstrations of the R1 Lite in runs/demos (`make train-demo`), and recordings of G1 and
# Franka prepared before (docs/data.md). Resumes; a second `fit-all` beside it shares the work.
STUDY = config/study/small.yaml --data $(RUNS)/data --cache $(RUNS)/study
compare-tokenizers: data
	$(BIN)/faster-vla data prepare r1_lite --input $(RUNS)/demos --out $(RUNS)/data/r1_lite
	$(BIN)/faster-vla tokenizer fit-all $(STUDY)
	$(BIN)/faster-vla tokenizer compare $(STUDY) --out $(RUNS)/compare \
	    --ship faster_core/assets/tokenizers

clean:
	rm -rf build install log out .pytest_cache .ruff_cache .hypothesis .coverage
