# make demo: train the bundled policy and look at the result.   make test: run the tests.
# Both make a virtual environment in .venv first. For torch from another index (a CPU-only build on Linux, say):
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow faults coverage lint types dist wheel-check audit clean

# On one thread: for a policy this small a second one only waits, and the figures are then the same on any number of cores.
demo: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/espo-gym train --algo espo --policy espo_gym/teaching --env espo_gym/Addition-v0 --preset teaching \
		--timesteps 7680 --out runs/demo --overwrite

# In as many processes as there are cores; a file stays in one of them, since its tests share what they have made.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

# Kills, full disks, signals and damaged files, for about an hour; prints the table of docs/reliability.md. Linux only.
faults: $(VENV)/installed-dev
	$(BIN)/python -m tests.faults

# The quick tests under coverage; fails below the floor in pyproject.toml. Not pytest-cov: pytest imports the package for
# its warning filters, before a plugin could measure that.
coverage: $(VENV)/installed-dev
	$(BIN)/python -m coverage run -m pytest
	$(BIN)/python -m coverage report

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(MAKE) --no-print-directory types

types: $(VENV)/installed-dev
	$(BIN)/python tests/check_types.py

# The sdist, and the wheel built from it.
dist: $(VENV)/installed-dev
	rm -rf dist && mkdir -p build
	$(BIN)/python -m build --outdir dist . > build/dist.log

# That wheel in a new environment, far from the checkout: alone, and with what training needs.
wheel-check: dist
	rm -rf build/wheel-check && mkdir -p build/wheel-check
	$(PYTHON) -m venv build/wheel-check/venv
	build/wheel-check/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		dist/*.whl
	cd build/wheel-check && venv/bin/python ../../tests/check_wheel.py alone
	build/wheel-check/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	build/wheel-check/venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		"$$(echo dist/*.whl)[train]"
	cd build/wheel-check && venv/bin/python ../../tests/check_wheel.py

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) --editable ".[train]"
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable ".[dev]"
	touch $@

# Known vulnerabilities in the versions that are installed; asks PyPI. pip-audit itself is the newest.
audit:
	rm -rf build/audit && mkdir -p build
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
