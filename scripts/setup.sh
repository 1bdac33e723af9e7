#!/bin/sh
# Makes .venv for `make demo` ("run") or for tests and lint ("dev"). Safe to repeat; the Makefile calls it
# only when pyproject.toml or this file has changed.
#
# What the system must have and hasn't is installed with apt-get where that works (root, Debian or Ubuntu);
# otherwise it is named, and nothing is done.
set -eu

want=${1:?usage: setup.sh run|dev}
venv=${VENV:-.venv}
# `pip` inside a virtual environment changes nothing of the system's: its advice about root doesn't apply.
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# The system's own interpreter first: the suite starts sandboxes as an ordinary user too, who often can't reach
# an interpreter below another one's home.
find_python() {
    for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        path=$(command -v "$name" 2>/dev/null) || continue
        if "$path" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$path"
            return
        fi
    done
}

has_library() {
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | grep -q "$1"
}

# The names of the Debian packages whose files aren't there.
missing_packages() {
    python=$(find_python)
    if [ -z "$python" ]; then
        echo python3 python3-venv
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo python3-venv
    fi
    has_library libseccomp.so.2 || echo libseccomp2
    [ "$want" = dev ] || return 0
    command -v git >/dev/null || echo git
    command -v gcc >/dev/null || echo gcc libc6-dev
    command -v unshare >/dev/null || echo util-linux
    if [ "$(id -u)" = 0 ]; then
        # The suite makes an ordinary user, and runs everything as that one too.
        PATH=$PATH:/sbin:/usr/sbin command -v useradd >/dev/null || echo passwd
    fi
}

packages=$(missing_packages | tr '\n' ' ')
if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $packages"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq </dev/null
        # shellcheck disable=SC2086  # several names
        apt-get install -qq -y --no-install-recommends $packages </dev/null >/dev/null
    else
        fail "missing: $packages(their names on Debian and Ubuntu); as root: apt-get install $packages"
    fi
fi
python=$(find_python)
[ -n "$python" ] || fail "Python 3.11 or newer is needed; the newest here is $(python3 --version 2>&1 || echo none)"

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "making $venv with $python"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
if [ "$want" = dev ]; then
    say "installing Hexe and the tools of its tests into $venv"
    "$venv/bin/python" -m pip install --quiet -e '.[dev]'
else
    say "installing Hexe into $venv"
    "$venv/bin/python" -m pip install --quiet -e .
fi
# An editable install is compiled by whoever imports it first, or never, under PYTHONDONTWRITEBYTECODE: then every
# start would compile everything again.
"$venv/bin/python" -m compileall -q src/hexe
# The first run writes the image of hexe run's modules, likewise.
env -u PYTHONDONTWRITEBYTECODE "$venv/bin/hexe" run --isolation none -- true
touch "$venv/.run"
[ "$want" = run ] || touch "$venv/.dev"
