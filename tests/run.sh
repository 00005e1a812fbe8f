#!/usr/bin/env bash
# Installs what the tests need into .venv (made here unless one is active) and runs all checks:
# lint, types, layers, unit tests, notebooks. `bash tests/run.sh -k name` passes words to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -d .venv ] || "${PYTHON:-python3}" -m venv .venv
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi
python -m pip install --quiet --disable-pip-version-check -e ".[test]"

if [ "$#" -eq 0 ]; then
    ruff format --check .
    ruff check .
    mypy
    lint-imports
fi
python -m pytest -n "${PYTEST_WORKERS:-2}" --dist worksteal "$@"
