#!/bin/sh
# Installs the locked dependencies into .venv. Needs a Python 3.10; installs uv into .uv where it is missing.
set -eu
cd "$(dirname "$0")/.."

# uv downloads packages only, never a Python interpreter.
export UV_PYTHON_DOWNLOADS=never

if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    uv=.uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "uv is not installed; installing it into .uv"
        bootstrap=
        for python in python3.10 python3 python; do
            if "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then bootstrap=$python && break; fi
        done
        if [ -z "$bootstrap" ]; then
            echo "error: neither uv nor a Python with its venv module was found on PATH." >&2
            echo "Install uv (https://docs.astral.sh/uv/), or on Debian and Ubuntu: apt install python3-venv" >&2
            exit 1
        fi
        rm -rf .uv
        "$bootstrap" -m venv .uv
        .uv/bin/pip install --quiet --disable-pip-version-check uv || { rm -rf .uv; exit 1; }
    fi
fi

if ! "$uv" python find --no-project 3.10 >/dev/null 2>&1; then
    echo "error: no Python 3.10 was found on PATH, in pyenv or in uv; TFX 1.16 needs it." >&2
    echo "Get one with 'uv python install 3.10', 'pyenv install 3.10', or your system's python3.10 package." >&2
    exit 1
fi

[ -d .venv ] || echo "Installing the locked packages into .venv: some 3 GB, a few minutes"
# With bytecode compiled once here, every later process imports TFX in a third of the time.
"$uv" sync --locked --quiet --compile-bytecode
touch .venv/.installed
