#!/usr/bin/env bash
# Installs what the tests need into .venv (made here unless one is active) and runs all checks:
# lint, types, layers, unit tests, notebooks, browser suite, documentation site.
# `bash tests/run.sh -k name` passes words to pytest; `-m "not browser"` needs no Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian's packages that are missing. Only root can install them; others must have done so.
packages=()
wanted() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$1" >&2
        exit 1
    fi
    packages+=("${@:2}")
}
if [[ "$*" != *"not browser"* ]] && ! command -v chromium >/dev/null; then
    wanted 'The browser suite needs Chromium as `chromium` on the PATH: install it, or run the
other tests with: bash tests/run.sh -m "not browser"' chromium fonts-dejavu-core
fi
if ! command -v redis-server >/dev/null; then
    wanted 'The tests of the Redis stores need `redis-server` (6.2 or newer) on the PATH.' \
        redis-server
fi
if [ ! -e .servers/node_modules/azurite ] && ! command -v npm >/dev/null; then
    echo 'The tests of Azure need `npm`, of Node 18 or newer, on the PATH.' >&2
    exit 1
fi

if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -d .venv ] || "${PYTHON:-python3}" -m venv .venv
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi

# Not compiled: the tests import less than half of it.
install=(pip install --no-compile --quiet --disable-pip-version-check)

# What is no wheel, or whose needs would not go with ours.
install_programs() {
    if [ "${#packages[@]}" -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${packages[@]}" >/dev/null
        service redis-server stop >/dev/null 2>&1 || true  # the tests start their own
    fi
    if [ ! -e .servers/node_modules/azurite ]; then
        npm install --prefix .servers --no-audit --no-fund --loglevel=error azurite@3.35.0
    fi
    if [ ! -x .servers/moto/bin/moto_server ]; then
        python -m venv .servers/moto
        .servers/moto/bin/python -m "${install[@]}" "moto[server]>=5"
    fi
}
install_programs &
programs=$!
trap wait EXIT  # whatever fails meanwhile: nothing goes on behind the caller's back

python -m "${install[@]}" -e ".[test]"
if [ "$#" -eq 0 ]; then
    ruff format --check .
    ruff check .
    mypy
    lint-imports
fi

wait "$programs"
# loadgroup keeps the browser suite, with its server and its browser, in one process. There are
# three, for two cores: some tests wait most of their time.
python -m pytest -n "${PYTEST_WORKERS:-3}" --dist loadgroup "$@"
