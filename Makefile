.PHONY: run serve test test-short test-debian13 lint format clean choose

# Flags of local_runner.py go into ARGS: make run ARGS="--data shapes --summary summary.json"
run: .venv/.installed
	.venv/bin/python local_runner.py $(ARGS)

# Serves the pushed models: make serve ARGS="--models runs/serving --port 8501"
serve: .venv/.installed
	.venv/bin/python -m serving.server $(ARGS)

test: lint
	.venv/bin/python -m pytest

# The same in a Debian 13 root, with the newer set of packages; needs root.
test-debian13:
	scripts/debian13.sh make test

# The tests that take seconds, whole runs with the Tuner, and the steps of compiled pipelines.
test-short: lint
	.venv/bin/python -m pytest -m "not slow"
	.venv/bin/python -m pytest tests/end_to_end/test_local_runner.py tests/end_to_end/test_kubeflow_runner.py

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/deptry --no-ansi .

format: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# PYTHON=3.12 make run chooses another interpreter.
.venv/.installed: pyproject.toml uv.lock scripts/install.sh $(if $(PYTHON),choose)
	scripts/install.sh

choose:

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache
