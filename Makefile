# Every target sets itself up: a virtual environment in .venv, from the tested versions in constraints.txt.
# Another Python: make PYTHON=python3.12 test
PYTHON ?= python3
RUN := .venv/bin
export MUJOCO_GL ?= egl
REAL_TIME := tests/ros tests/test_web_browser.py tests/test_teleop_terminal.py

.PHONY: demo test check bench lock locked sbom clean

demo: .venv/.ready  ## demonstrations in, a better policy out: less than 10 minutes on 2 quiet cores
	$(RUN)/robot-rl demo --out runs/demo

test: .venv/.ready  ## all tests; those in real time have the machine to themselves
	$(RUN)/python -m pytest -q --numprocesses 2 --dist loadfile $(addprefix --ignore=,$(REAL_TIME))
	$(RUN)/python -m pytest -q $(REAL_TIME)

check: .venv/.ready  ## style and types
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy

bench: .venv/.ready  ## speeds beside those of peers, in a table and in bench.json
	$(RUN)/python -m pip install --quiet --constraint constraints.txt stable-baselines3==2.9.2 "pandas<2.3"
	OMP_NUM_THREADS=1 $(RUN)/python tests/benchmarks/bench.py

.venv/.ready: constraints.txt pyproject.toml .ci/require_system.py
	$(PYTHON) .ci/require_system.py
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lock: .venv/.ready  ## requirements.lock: the tested versions with the SHA-256 of every file, for this Python and platform
	$(RUN)/python .ci/lock.py requirements.lock --constraint constraints.txt --editable '.[dev]'

locked:  ## the environment, of files whose hashes are those of requirements.lock, and of no other
	$(PYTHON) .ci/require_system.py
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements.lock
	$(RUN)/python -m pip install --quiet --no-deps --editable .
	touch .venv/.ready

sbom: .venv/.ready  ## sbom.cdx.json: what is installed, with versions and licences (CycloneDX)
	$(PYTHON) -m venv .venv/sbom
	.venv/sbom/bin/python -m pip install --quiet cyclonedx-bom==7.5.0
	.venv/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.cdx.json $(RUN)/python

clean:  ## remove the environment; runs and data stay
	rm -rf .venv build *.egg-info
