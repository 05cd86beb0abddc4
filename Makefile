# Every target sets itself up: a virtual environment in .venv, from the tested versions in constraints.txt.
# Another Python: make PYTHON=python3.12 test
PYTHON ?= python3
RUN := .venv/bin
export MUJOCO_GL ?= egl

.PHONY: demo test check clean

demo: .venv/.ready  ## demonstrations in, a better policy out: about 15 minutes on 2 cores
	$(RUN)/robot-rl demo --out runs/demo

test: .venv/.ready  ## all tests
	$(RUN)/python -m pytest -q

check: .venv/.ready  ## style and types
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

.venv/.ready: constraints.txt pyproject.toml .ci/require_system.py
	$(PYTHON) .ci/require_system.py
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:  ## remove the environment; runs and data stay
	rm -rf .venv build *.egg-info
