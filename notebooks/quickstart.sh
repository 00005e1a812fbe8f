#!/usr/bin/env bash
# The main job on a fresh machine: installs omniq_nb into .venv (made here unless one is active),
# runs the quickstart notebook from top to bottom and prints its tables.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -d .venv ] || "${PYTHON:-python3}" -m venv .venv
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi
python -m pip install --quiet --disable-pip-version-check -e ".[notebook]"
python notebooks/show.py notebooks/01_quickstart.ipynb
