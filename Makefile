.PHONY: run serve test test-short test-debian13 lint format audit sbom clean choose

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

# The locked packages of .venv in the database of advisories; SECURITY.md judges those that are left out here.
UV = $(shell command -v uv || echo .uv/bin/uv)
JUDGED = CVE-2023-47248 CVE-2026-25087 CVE-2024-28397 CVE-2025-4565 CVE-2026-0994 CVE-2026-59939 CVE-2026-12570 \
	CVE-2025-51480 CVE-2026-27489 CVE-2026-28500 CVE-2026-34445 CVE-2026-34446
audit: .venv/.installed
	$(UV) export --quiet --frozen --all-extras --no-emit-project --no-hashes --output-file .venv/audit.txt
	$(UV) tool run --python .venv/bin/python pip-audit --strict --requirement .venv/audit.txt --no-deps --disable-pip \
		$(JUDGED:%=--ignore-vuln %)

# A list of the packages of both sets, for programs: CycloneDX 1.5.
sbom: .venv/.installed
	$(UV) export --quiet --frozen --no-dev --preview-features sbom-export --format cyclonedx1.5 --output-file sbom.json

# PYTHON=3.12 make run chooses another interpreter.
.venv/.installed: pyproject.toml uv.lock scripts/install.sh $(if $(PYTHON),choose)
	scripts/install.sh

choose:

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache
