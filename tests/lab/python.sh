#!/usr/bin/env bash
# Makes sure that .venv in this checkout has the locked dependencies, and that
# .venv/bin/chain runs this checkout.
#
#   python.sh                     does nothing when all of that is so already
#   python.sh lock [--upgrade]    writes the lock files anew from pyproject.toml
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

CHECKOUT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
VENV="$CHECKOUT/.venv"
LOCK="$CHECKOUT/requirements-dev.lock"
STAMP="$VENV/chain-stamp"
OLDEST=11
NEWEST=13

export UV_PYTHON_DOWNLOADS=never

# Names the checkout too, since a copied or moved .venv still runs the old one.
wanted_stamp() { hash_of "$LOCK" "${BASH_SOURCE[0]}" "=$CHECKOUT"; }

# The import fails when the Python that .venv was made with is gone or another.
current() {
    [ "$(cat "$STAMP" 2>/dev/null)" = "$(wanted_stamp)" ] && [ -x "$VENV/bin/chain" ] &&
        "$VENV/bin/python" -P -c 'import chain' 2>/dev/null
}

# Prints the first usable one, not through a virtual environment or a shim.
find_python() {
    local name code
    code="import sys; ok = (3, $OLDEST) <= sys.version_info[:2] <= (3, $NEWEST); ok and print(sys._base_executable); sys.exit(not ok)"
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11 /usr/bin/python3; do
        if command -v "$name" >/dev/null && "$name" -c "$code" 2>/dev/null; then return 0; fi
    done
    return 1
}

has_pip() { "$1" -c 'import ensurepip' 2>/dev/null; }

choose_python() {
    if ! python=$(find_python); then
        is_debian || die "no Python 3.$OLDEST to 3.$NEWEST is here: install one, and name it with PYTHON=… if it is not called python3" 3
        need_tools python3 python3-venv
        python=$(find_python) || die "this Debian has no Python 3.$OLDEST to 3.$NEWEST: install one and name it with PYTHON=…" 3
    fi
    if ! has_pip "$python"; then
        # Debian keeps that part of its Python in a package of its own.
        case $(is_debian && realpath "$python") in
            /usr/bin/python3*) need_tools python3-venv ;;
        esac
        has_pip "$python" || die "$python has no ensurepip: install it, or name another Python with PYTHON=…" 3
    fi
}

# What this machine says about certificates and package indexes to pip holds for uv as well.
follow_machine() {
    local bundle index
    for bundle in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "$("$1" -m pip config get global.cert 2>/dev/null || true)" \
        /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        if [ -f "$bundle" ]; then
            export SSL_CERT_FILE=${SSL_CERT_FILE:-$bundle} PIP_CERT=${PIP_CERT:-$bundle}
            break
        fi
    done
    index=${PIP_INDEX_URL:-$("$1" -m pip config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}; fi
}

# The lock file's entry for uv, with its hashes.
pinned_uv() { awk '/^uv==/ { on = 1 } on { print } on && !/\\$/ { exit }' "$LOCK"; }

# A virtual environment with pip, to read pip's settings with, and uv.
get_uv() {
    rm -rf "$TOOLS.part"
    "$python" -m venv "$TOOLS.part"
    pinned_uv >"$TOOLS.part/uv.txt"
    follow_machine "$TOOLS.part/bin/python"
    "$TOOLS.part/bin/python" -m pip install --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$TOOLS.part/uv.txt"
    rm -rf "$CACHE"/uv-????????????????
    mv "$TOOLS.part" "$TOOLS"
}

ensure_uv() {
    TOOLS="$CACHE/uv-$(hash_of "=$(pinned_uv)")"
    UV="$TOOLS/bin/uv"
    "$UV" --version >/dev/null 2>&1 || step "getting uv, which installs the rest" get_uv
    follow_machine "$TOOLS/bin/python"
}

fill() {
    local packages
    rm -f "$STAMP"
    "$VENV/bin/python" -c 'import encodings' 2>/dev/null || "$UV" venv --clear --python "$python" "$VENV"
    VIRTUAL_ENV="$VENV" "$UV" pip sync --require-hashes "$LOCK"
    packages=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$CHECKOUT" >"$packages/chain-checkout.pth"
    rm -f "$VENV/bin/chain"
    # Through the shell, as an interpreter's path behind #! may be neither long nor hold a space.
    cat >"$VENV/bin/chain" <<END
#!/bin/sh
'''exec' '${VENV//\'/\'\\\'\'}/bin/python' -P "\$0" "\$@"
' '''
from chain.__main__ import main

main()
END
    chmod 755 "$VENV/bin/chain"
    "$VENV/bin/chain" --version
    wanted_stamp >"$STAMP"
}

lock() {
    cd "$CHECKOUT"
    local options=(--universal --python-version "3.$OLDEST" --generate-hashes --no-annotate --custom-compile-command "make lock" -q "$@")
    "$UV" pip compile "${options[@]}" -o requirements.lock pyproject.toml
    # Constrained, so that tests run with the versions that users get.
    "$UV" pip compile "${options[@]}" --all-extras -c requirements.lock -o requirements-dev.lock pyproject.toml
    if grep -nE '://|@ ' requirements.lock requirements-dev.lock; then
        echo "an address has got into a lock file"
        return 1
    fi
}

case "$*" in
    '')
        if current; then exit 0; fi
        ;;
    lock | 'lock --upgrade') ;;
    *) die "usage: $0 [lock [--upgrade]]" 2 ;;
esac
one_at_a_time python
if [ $# = 0 ] && current; then exit 0; fi
begin_log python
choose_python
ensure_uv
if [ $# = 0 ]; then
    step "installing the locked Python packages in .venv" fill
else
    shift
    step "locking the dependencies" lock "$@"
fi
