# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# glibc gives freed memory back to the system at once, and element-wise work on the CPU then spends its time in page faults.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
export TOKENIZERS_PARALLELISM ?= false

# of the environment that make stories fills; its own, not that of .venv
STORIES_PYTHON ?= $(PYTHON)

.PHONY: demo test test-oldest test-browser stories docs lint compare clean distclean help

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes and 2.5 GB"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,plots,tracking,export,demo,video]'
	touch $(READY)

demo: $(READY)  ## train a teacher, distil students, compare them (synthetic rooms)
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/compare.py --teacher_config scripts/recipes/rooms_teacher.yaml \
		--student_config scripts/recipes/rooms_student.yaml --methods none cs --output_dir outputs/demo

compare: $(READY)  ## all methods over three seeds (synthetic rooms; about half an hour on two cores)
	HF_HUB_OFFLINE=1 $(BIN)/python scripts/compare.py --teacher_config scripts/recipes/rooms_teacher.yaml \
		--student_config scripts/recipes/rooms_student.yaml --methods none kl dist cwd cs --seeds 0 1 2 \
		--max_steps 300 --output_dir outputs/compare

test: $(READY)  ## run the test suite, two files at a time
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-oldest: $(READY)  ## the core of the suite with the oldest supported versions of constraints-oldest.txt
	test -d .oldest/transformers || $(BIN)/python -m pip install --quiet --no-deps --target .oldest -r constraints-oldest.txt
	PYTHONPATH=.oldest HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile tests/tasks tests/distillation \
		tests/training/test_trainer.py tests/training/test_runs.py tests/hub/test_loading.py

test-browser: $(READY)  ## the demo page in a headless Chromium (apt-get install chromium); SCREENSHOT=FILE MODEL=DIR TEACHER=DIR keep a picture
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 SCREENSHOT='$(SCREENSHOT)' MODEL='$(MODEL)' TEACHER='$(TEACHER)' \
		$(BIN)/python -m pytest tests/browser

stories: $(READY)  ## build and check the wheel, install it into an empty environment, do there what a user does
	$(BIN)/python -m pip install --quiet -c constraints.txt build twine
	rm -rf outputs/dist outputs/installed
	$(BIN)/python -m build --outdir outputs/dist >/dev/null
	$(BIN)/twine check --strict outputs/dist/*
	$(STORIES_PYTHON) -m venv outputs/installed
	outputs/installed/bin/python -m pip install --quiet -c constraints.txt torch
	outputs/installed/bin/python -m pip install --quiet -c constraints.txt "$$(ls outputs/dist/*.whl)[export]"
	STORIES_BIN=$(CURDIR)/outputs/installed/bin $(BIN)/python -m pytest tests/stories

docs: $(READY)  ## the documents as a site, in outputs/site
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove what the demo and comparisons made
	rm -rf outputs/demo outputs/compare outputs/cache

distclean: clean  ## remove the environment too
	rm -rf $(VENV) .oldest
