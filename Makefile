# The same commands for people and for CI. Each creates the environment first, if need be.

# The first Python of 3.11 or later that can make environments; constraints.txt was tested on 3.11.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
    $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    && echo $$python && break; done)
VENV ?= .venv
STAMP = $(VENV)/installed
TORCH = torch==2.13.0
# A machine without a GPU gets the CPU build, where pip's index has it, and else the general one.
TORCH_BUILDS = $(if $(shell command -v nvidia-smi),,"$(TORCH)+cpu") "$(TORCH)"
QUIETLY = >$(VENV)/install.log 2>&1
PYTEST = $(VENV)/bin/python -m pytest -q
# The groups, and their order, are those of tests/conftest.py.
IN_TWO = --numprocesses 2 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-faults test-cluster lint bench schema kubernetes
.DEFAULT_GOAL = demo

demo: $(STAMP)  ## the whole flow on the embedded corpus
	@$(VENV)/bin/heliograph demo

test: $(STAMP)  ## every law, and one of each fault
	@$(PYTEST) $(IN_TWO)

test-faults: $(STAMP)  ## repetitions, long faults, other servers, clusters
	@$(PYTEST) $(IN_TWO) -m faults --ignore tests/cluster
	@$(MAKE) --no-print-directory test-cluster  # whose hosts miss one another where all is slow

test-cluster: $(STAMP)  ## of these: hosts killed and cut off from the network; Linux, as root
	@$(PYTEST) -m faults tests/cluster

lint: $(STAMP)
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

bench: $(STAMP)
	@$(VENV)/bin/python benchmarks/train.py
	@$(VENV)/bin/python benchmarks/data.py
	@$(VENV)/bin/python benchmarks/recovery.py

schema: $(STAMP)  ## recipes/schema.json, after a change to pipeline/request/recipe.py
	@$(VENV)/bin/python -c "from heliograph.pipeline.request.recipe import Recipe; \
	    print(Recipe.json_schema(), end='')" > recipes/schema.json

kubernetes: $(STAMP)  ## deploy/kubernetes, after a change to cluster.yaml
	@$(VENV)/bin/python deploy/kubernetes.py cluster > deploy/kubernetes/raycluster.yaml
	@$(VENV)/bin/python deploy/kubernetes.py job > deploy/kubernetes/rayjob.yaml

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo >&2 "heliograph needs Python 3.11 or later, with venv;" \
	    "set PYTHON=/path/to/python3"; exit 1; }
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@test -x $(VENV)/bin/python || "$(PYTHON)" -m venv $(VENV)
	@for build in $(TORCH_BUILDS); do $(VENV)/bin/pip install "$$build" $(QUIETLY) && exit; done; \
	    cat $(VENV)/install.log >&2; exit 1
	@$(VENV)/bin/pip install -c constraints.txt -e '.[dev]' $(QUIETLY) \
	    || { cat $(VENV)/install.log >&2; exit 1; }
	@touch $@
