# make repro   set up, then raw data → shards → training → evaluation → export → benchmark → registered model
# make test    set up, then the tests
# make gpu-check  what needs an NVIDIA GPU; PyTorch alone is enough
VENV := .venv
PYTHON ?= python3
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
# Some machines forbid bytecode; each of many short processes would then compile the library anew.
unexport PYTHONDONTWRITEBYTECODE

# The files whose slow tests take longest come first, in an order in which three workers get equal shares: each
# takes one file, then a second one, and then whatever is left.
LONGEST := tests/test_real_coco.py tests/search/test_resume.py tests/test_kills.py \
	tests/docs/test_tutorial.py tests/test_faults.py tests/search/test_two_workers.py tests/ladder/test_run.py
SLOW = $(LONGEST) $(shell grep -rlE "mark\.slow" tests --include="test_*.py")

.PHONY: repro test lint ui venv gpu-check

repro: $(VENV)/.ready
	@dvc repro && python -m pipelines.summary

test: $(VENV)/.ready
	@python -m pytest -n 3 --dist worksteal -m "not slow"
	@python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow $(SLOW)

lint: $(VENV)/.ready
	@ruff check . && ruff format --check . && mypy && NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

ui: $(VENV)/.ready
	@python -m pipelines.ui

gpu-check:
	@$(PYTHON) benchmarks/gpu_check.py

venv: $(VENV)/.ready

# The newest pip first, which no version of ours depends on: the one that Python brings takes twice as long to find
# versions that fit. Then torch: where an index offers a CPU build of the pinned version, pip then keeps it.
$(VENV)/.ready: pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv --upgrade-deps $(VENV)
	@pip install --quiet --disable-pip-version-check "$$(grep -o 'torch==[0-9.]*' pyproject.toml)"
	@pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
