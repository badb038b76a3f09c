#!/bin/sh
# Installs the locked packages into .venv, in one of two sets:
#   TFX 1.21 on Python 3.11 to 3.13, whose wheels need glibc 2.39 or newer (Ubuntu 24.04, Debian 13);
#   TFX 1.16 on Python 3.10, for older systems.
# PYTHON=3.10 (or 3.11, 3.12, 3.13) chooses the interpreter. Without it, an existing .venv keeps its own. Where no
# interpreter fits, uv downloads one; UV_PYTHON_DOWNLOADS=never forbids that.
set -eu
unset UV_PROJECT_ENVIRONMENT
cd "$(dirname "$0")/.."

new_versions="3.13 3.12 3.11"
old_version=3.10
new_glibc=2.39

fail() {
    echo "error: $1" >&2
    shift
    for line in "$@"; do echo "$line" >&2; done
    exit 1
}

# Prints the path of an interpreter of version $1: from PATH, pyenv, or uv. Each candidate has to answer in this
# folder, because the shims of pyenv fail where a version is not selected.
find_python() {
    for candidate in "python$1" python3 python "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/$1".*/bin/python; do
        if found=$("$candidate" -c 'import sys; print("%d.%d %s" % (*sys.version_info[:2], sys.executable))' 2>/dev/null) &&
            [ "${found%% *}" = "$1" ]; then
            echo "${found#* }"
            return
        fi
    done
    [ -n "$uv" ] && UV_PYTHON_DOWNLOADS=never "$uv" python find --no-project "$1" 2>/dev/null
}

# Prints the version of glibc, such as 2.41; nothing on other systems.
glibc_version() {
    getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p'
}

# Whether version $1 is at least version $2.
at_least() {
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Sets uv to one that answers in this folder, or to nothing.
find_uv() {
    for uv in uv .uv/bin/uv; do
        if "$uv" --version >/dev/null 2>&1; then return; fi
    done
    uv=
}

install_uv() {
    echo "uv is not installed; installing it into .uv"
    rm -rf .uv
    for version in $new_versions $old_version ""; do
        if python=$(find_python "$version") || python=$(command -v "python3$version"); then
            if "$python" -m venv .uv >/dev/null 2>&1 && .uv/bin/python -m pip --version >/dev/null 2>&1; then
                .uv/bin/python -m pip install --quiet --disable-pip-version-check uv && return
                rm -rf .uv
                fail "uv could not be installed with $python." "Its messages are above."
            fi
            rm -rf .uv
        fi
    done
    fail "neither uv nor a Python with its venv module was found." \
        "Install uv (https://docs.astral.sh/uv/), or on Debian and Ubuntu: apt install python3-venv"
}

# Sets python to the interpreter for the packages.
choose_python() {
    glibc=$(glibc_version)
    if [ -n "${PYTHON:-}" ]; then
        case " $new_versions $old_version " in
        *" $PYTHON "*) ;;
        *) fail "PYTHON=$PYTHON: expected one of $new_versions $old_version." ;;
        esac
        if [ "$PYTHON" != "$old_version" ] && ! at_least "$glibc" "$new_glibc"; then
            fail "PYTHON=$PYTHON: TFX 1.21 needs glibc $new_glibc or newer, found ${glibc:-another C library}." \
                "Use PYTHON=$old_version here."
        fi
        wanted=$PYTHON
    elif wanted=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
        case " $new_versions $old_version " in *" $wanted "*) ;; *) wanted= ;; esac
        # An environment of a version that this system cannot use is replaced.
        if [ "$wanted" != "$old_version" ] && ! at_least "$glibc" "$new_glibc"; then wanted=; fi
    else
        wanted=
    fi
    if [ -z "$wanted" ]; then
        if at_least "$glibc" "$new_glibc"; then candidates="$new_versions $old_version"; else candidates=$old_version; fi
    else
        candidates=$wanted
    fi
    for version in $candidates; do
        if python=$(find_python "$version"); then return; fi
    done
    version=${candidates%% *}
    if [ "${UV_PYTHON_DOWNLOADS:-automatic}" != never ]; then
        echo "No Python $candidates was found; uv downloads Python $version"
        if "$uv" python install --quiet "$version" 2>/dev/null && python=$(find_python "$version"); then return; fi
    fi
    fail "no Python $(echo "$candidates" | sed 's/ /, /g') was found on PATH, in pyenv or in uv, and none could be downloaded." \
        "This machine has glibc ${glibc:-of an unknown version}: TFX 1.21 needs $new_glibc and Python 3.11 to 3.13, TFX 1.16 needs Python $old_version." \
        "Install one: 'uv python install $version', 'pyenv install $version', or your system's package python$version."
}

# The set of Python 3.10 has one package without a wheel for Linux, pyfarmhash, which is compiled.
check_compiler() {
    if [ "$version" = "$old_version" ] && ! ls .venv/lib/python3.10/site-packages/farmhash* >/dev/null 2>&1; then
        command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 ||
            fail "pyfarmhash has to be compiled for Python $old_version, and there is no C++ compiler." \
                "On Debian and Ubuntu: apt install g++"
        "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
            fail "pyfarmhash has to be compiled for Python $old_version, and the headers of $python are missing." \
                "The Pythons of pyenv and uv have them; on Ubuntu 22.04: apt install python$old_version-dev"
    fi
}

find_uv
if [ -z "$uv" ]; then
    install_uv
    find_uv
fi
choose_python
check_compiler
if [ "$version" = "$old_version" ]; then set_name="TFX 1.16"; else set_name="TFX 1.21"; fi
echo "Python $version ($python): $set_name"
[ -e .venv/.installed ] || echo "Installing the locked packages into .venv: some 3 GB, a few minutes"
# With bytecode compiled once here, every later process imports TFX in a third of the time.
UV_PYTHON_DOWNLOADS=never "$uv" sync --locked --quiet --compile-bytecode --python "$python"
touch .venv/.installed
