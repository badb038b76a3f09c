.PHONY: run test lint format clean

# Flags of local_runner.py go into ARGS: make run ARGS="--data shapes --summary summary.json"
run: .venv/.installed
	.venv/bin/python local_runner.py $(ARGS)

test: lint
	.venv/bin/python -m pytest

lint: .venv/.installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/deptry --no-ansi .

format: .venv/.installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

.venv/.installed: pyproject.toml uv.lock scripts/install.sh
	scripts/install.sh

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache
