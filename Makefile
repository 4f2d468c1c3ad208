# `make` lists the targets. `make test` and `make reproduce` set up what they need, once, in .venv.
PYTHON  ?= python3
PROFILE ?= cpu
VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.stamp
UI      := $(VENV)/.stamp-ui
SLURM   := $(VENV)/.stamp-slurm
RUN      = $(PY) -m mede_core reproduce --profile $(PROFILE)
OPTIONS  = $(if $(ONLY),--only '$(ONLY)') $(if $(filter-out 0,$(FORCE)),--force $(FORCE)) $(if $(JOBS),--jobs $(JOBS)) \
           $(if $(DATA),--data '$(DATA)') $(if $(filter-out 0,$(DRY)),--dry-run) \
           $(if $(EXECUTOR),--executor $(EXECUTOR)) $(if $(OLDER),--older $(OLDER))
EXTRAS   = report video notebooks dev

# The kernel of this environment, never one of the user's with the same name.
export JUPYTER_PREFER_ENV_PATH := 1
# glibc gives the memory of every large tensor back to the system and asks for it again at the next step. Keeping it
# makes a training step of the small CLIP 1.06 to 1.10 times faster (two processes at a time); the bits are the same.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-ui test-slurm lab figures gallery ship lint bench lock doctor clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP)  ## make .venv and install everything (the others do this by themselves)

# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, as in many containers, each start would compile everything anew
# (import open_clip: 7.8 s in place of 3.1).
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet uv
	$(PY) -m uv pip install --quiet --compile-bytecode --python $(PY) -r requirements.lock
	$(PY) -m uv pip install --quiet --python $(PY) --no-deps -e .
	@touch $@

# FORCE=all also trains and tests again. EXECUTOR=slurm takes a cluster's options from a Snakemake profile.
reproduce: $(STAMP)  ## run all notebooks [PROFILE=cpu|smoke|full|paper ONLY='22_*' FORCE=1 JOBS=2 DRY=1 DATA=data.yaml]
	$(RUN) $(OPTIONS)

test: $(STAMP)  ## run the tests
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

$(UI): $(STAMP)
	$(PY) -m uv pip install --quiet --python $(PY) -e '.[ui]'
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { apt-get update -qq && apt-get install -y -qq chromium; } || \
	  { sudo apt-get update -qq && sudo apt-get install -y -qq chromium; } || \
	  { echo "Please install Chromium from your distribution." >&2; exit 1; }
	@touch $@

test-ui: $(UI)  ## run the notebooks in a JupyterLab in a headless browser
	$(PY) -m pytest -q -m ui

$(SLURM): $(STAMP)
	$(PY) -m uv pip install --quiet --python $(PY) -e '.[cluster]'
	@command -v slurmd || { apt-get update -qq && apt-get install -y -qq slurm-wlm munge; } || \
	  { sudo apt-get update -qq && sudo apt-get install -y -qq slurm-wlm munge; } || \
	  { echo "Please install slurm-wlm and munge from your distribution." >&2; exit 1; }
	@touch $@

test-slurm: $(SLURM)  ## run a profile through a SLURM on this machine alone (as root)
	$(PY) -m pytest -q -m slurm

lab: $(STAMP)  ## open JupyterLab on the notebooks [LAB=--allow-root, or other options of JupyterLab]
	$(PY) -m jupyterlab --ServerApp.root_dir=. $(LAB) notebooks/00_index.ipynb

figures: $(STAMP)  ## rebuild the committed figures/ [PROFILE=cpu]
	$(RUN) $(OPTIONS) --publish

gallery: $(STAMP)  ## rebuild the HTML gallery and the summary of the last run [PROFILE=cpu]
	$(RUN) --report-only

ship: $(STAMP)  ## make the runs and scores that ship with the package
	$(PY) -m mede_core ship

lint: $(STAMP)  ## check the code and the notebooks
	$(PY) -m ruff check .
	@for notebook in notebooks/*.ipynb; do \
	  [ ! -e "$$notebook" ] || $(VENV)/bin/nbstripout --keep-id --verify "$$notebook" || exit 1; done

bench: $(STAMP)  ## time and memory of the kernel beside plain training, and how fast the explorers draw
	@for file in benchmarks/*.py; do echo "$$file"; $(PY) "$$file" || exit 1; done

lock: $(STAMP)  ## resolve requirements.lock anew from pyproject.toml
	$(PY) -m uv pip compile --quiet --universal --no-header --upgrade $(EXTRAS:%=--extra %) -o requirements.lock pyproject.toml

doctor: $(STAMP)  ## versions, kernel, widgets, device, weights and data
	$(PY) -m mede_core doctor

clean:  ## remove reports and caches; training runs (runs/) stay
	rm -rf reports .pytest_cache .ruff_cache .hypothesis build dist
	find . -path ./$(VENV) -prune -o -path ./runs -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -print0 | xargs -0 rm -rf
