# The four things one does here. Each sets up .venv first: Python 3.11 and the package registry are all it needs.
PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PYTHONUNBUFFERED := 1

.PHONY: run test test-all lint ui bench lock

run: $(READY)  ## raw media to rendered video; does nothing when nothing changed
	@talkingface reproduce && talkingface where

# Their networks are tiny, and threads that wait for each other stall where anything else is at work.
test test-all: export OMP_NUM_THREADS := 1

test: $(READY) lint  ## the fast tests, two files at a time: some ten minutes on 2 cores
	@python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --durations=25

test-all: $(READY) lint
	@python -m pytest

lint: $(READY)
	@ruff check . && ruff format --check . && mypy

ui: $(READY)  ## MLflow and Prefect on this machine alone
	@talkingface ui

bench: $(READY)  ## GeneFace's three tables are of what `make run` leaves, and train for themselves what they compare
	@python -m tests.bench && python -m tests.models.diffspeaker.bench vocaset
	@for part in head motion postnet; do echo && python -m tests.models.$$part.bench || exit 1; done

# cv2 comes in two packages that write the same files; the headless one goes last, as it needs no system library.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or name it: make run PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements.lock
	$(VENV)/bin/pip install --quiet --no-deps --force-reinstall $$(grep opencv-python-headless requirements.lock)
	$(VENV)/bin/pip install --quiet --no-deps -e .
	touch $@

lock:  ## renew requirements.lock from pyproject.toml
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet ".[dev]"
	$(VENV)-lock/bin/pip freeze --exclude talkingface | sed 's/+cpu$$//' > requirements.lock
	rm -rf $(VENV)-lock
