# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint .ci/constraints.txt
WORKERS ?= 2
export FLWR_TELEMETRY_ENABLED = 0
export RAY_USAGE_STATS_ENABLED = 0
export NO_MKDOCS_2_WARNING = 1

.PHONY: demo test check docs drills release-rehearsal format clean

demo: $(VENV)/.stamp-demo  ## train on MNIST over masked, noised sums and write the report
	$(BIN)/veilsum simulate mnist --fallback --output veilsum-runs/demo --fresh

test: $(VENV)/.stamp-test .venv-tf/.stamp-test check  ## every check and the whole suite, in both environments
	$(BIN)/python -m pytest -n $(WORKERS) -m "not drill"
	@echo "--- beside TensorFlow 2.15, tensorflow-privacy and numpy 1.26:"
	.venv-tf/bin/python -m pytest -n $(WORKERS) -m "not drill" -W default tests/secagg tests/dp tests/fedavg/adapters tests/examples/test_tensorflow_privacy.py

check: $(VENV)/.stamp-test docs  ## format, lint, types, import contracts, doctests, the site
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest -q --doctest-modules secagg dp fedavg

docs: $(VENV)/.stamp-test  ## the documentation site into site/, strictly: links, anchors, docstrings, snippets
	$(BIN)/python -m mkdocs build --strict --config-file .mkdocs.yml
	$(BIN)/python -m pytest -q tests/docs/test_snippets.py

drills: $(VENV)/.stamp-test  ## the long ones: kill drills, deep fuzzing
	$(BIN)/python -m pytest -m drill

release-rehearsal: $(VENV)/.stamp-test  ## build, check, sign, install and try a release; nothing is uploaded
	$(BIN)/python .ci/rehearse_release.py

format: $(VENV)/.stamp-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv-tf/.stamp-test: pyproject.toml .ci/constraints-tf.txt | $(BIN)/python
	@echo "Installing Veilsum beside tensorflow-privacy into .venv-tf (once) ..."
	$(PYTHON) -m venv .venv-tf
	.venv-tf/bin/python -m pip --disable-pip-version-check install --quiet --constraint .ci/constraints-tf.txt --editable ".[tensorflow]" pytest pytest-xdist hypothesis cryptography-vectors
	@touch $@

clean:
	rm -rf $(VENV) .venv-tf dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Veilsum pins its environment for Python 3.11; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-demo: pyproject.toml .ci/constraints.txt | $(BIN)/python
	@echo "Installing Veilsum into $(VENV) (once) ..."
	$(PIP) --editable ".[report]"
	@touch $@

$(VENV)/.stamp-test: pyproject.toml .ci/constraints.txt | $(BIN)/python
	@echo "Installing Veilsum and its test tools into $(VENV) (once) ..."
	$(PIP) --editable ".[report,torch,keras,jax,sklearn,ray,flower,hdf5,images,docs,dev]"
	@touch $@ $(VENV)/.stamp-demo
