#!/usr/bin/env bash
# Checks and tests in phases, what fails soonest first; each tells how long it took.
#
#   run.sh check     what needs neither Docker nor root
#   run.sh test      everything
#   run.sh engines   the scenarios on a current engine beside the machine's own, and with a current Compose
#   run.sh soak      breaks a chain again and again, as tests/scenarios/soak.py says; VM=1: in the virtual machine
#   run.sh failover  measures failover, as bench/failover.py says; VM=1: in the virtual machine
#   run.sh lab       only starts the virtual machine, with all images in it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

# seconds BEGIN: those since then, with one digit behind the point.
seconds() {
    local tenths=$(((${EPOCHREALTIME/./} - ${1/./}) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# phase TITLE COMMAND...: ends the script if the command fails.
phase() {
    local title=$1 begin=$EPOCHREALTIME code=0
    shift
    printf '── %s\n' "$title"
    # Not in a condition, where the shell would ignore errors inside a function.
    set +e
    (set -e; "$@")
    code=$?
    set -e
    if [ "$code" != 0 ]; then
        printf '── %s: FAILED with %d after %s s\n' "$title" "$code" "$(seconds "$begin")"
        exit "$code"
    fi
    printf '── %s: %s s\n' "$title" "$(seconds "$begin")"
}

# there PATH...: those that exist.
there() {
    local path
    for path; do if [ -e "$path" ]; then echo "$path"; fi; done
}

FAILED=()

# try TITLE COMMAND...: says what the command says if it fails, and goes on.
try() {
    local title=$1 begin=$EPOCHREALTIME output
    shift
    if output=$("$@" 2>&1); then
        printf '%-24s %5s s\n' "$title" "$(seconds "$begin")"
    else
        printf '%s\n%-24s %5s s  FAILED\n' "$output" "$title" "$(seconds "$begin")"
        FAILED+=("$title")
    fi
}

scripts() {
    local found
    mapfile -t found < <(grep -rlIE -m1 '^(#!/bin/sh|#!/usr/bin/env bash|# shellcheck shell=)' \
        --exclude-dir={.git,.venv,node_modules} --exclude='*.md' --exclude='*.py' .)
    shellcheck "${found[@]}"
}

check() {
    local begin=$EPOCHREALTIME beside commands=tests/unit/test_cli.py
    # Half of it goes beside the other half; what starts the command itself takes a third of the unit tests' time.
    exec {beside}< <(
        try types mypy
        try "other tests" python -m pytest -q tests/golden tests/errors tests/imports tests/providers tests/crash "$commands"
        printf '%s' "${#FAILED[@]}"
    )
    try style ruff check
    try format ruff format --check
    try layers lint-imports
    try scripts scripts
    printf '%s\n' tests
    python -m pytest -q tests/unit --ignore "$commands" || FAILED+=(tests)
    local said
    said=$(cat <&"$beside")
    exec {beside}<&-
    printf '%s' "${said%?}"
    if [ "${said: -1}" != 0 ]; then FAILED+=("types or other tests"); fi
    if [ "${#FAILED[@]}" -gt 0 ]; then
        printf 'check: FAILED in %s (%s s)\n' "${FAILED[*]}" "$(seconds "$begin")"
        return 1
    fi
    printf 'check: all is well (%s s)\n' "$(seconds "$begin")"
}

# Starts the virtual machine and says where it is. All images are named at once,
# since one that it lacks means a restart.
start_vm() {
    local images
    images=$(python tests/lab/build_images.py)
    # shellcheck disable=SC2086 # a list of names
    CHAIN_LAB_HOST=$(tests/lab/vm.sh up $images)
    CHAIN_LAB_SHARE=$(tests/lab/vm.sh share)
    export CHAIN_LAB_HOST CHAIN_LAB_SHARE
}

SELECTION=()
if [ "${LONG:-}" != 1 ]; then SELECTION=(-m "not rare"); fi

native_tests() {
    local folders
    mapfile -t folders < <(there tests/netns tests/scenarios)
    python -m pytest --durations=40 "${SELECTION[@]}" "${folders[@]}"
}

# tests_with KIND TEST...: an exit of another kind in the first one's place. What is about it alone, and what might
# differ with it; each leak test once.
tests_with() {
    local kind=$1 traffic=tests/scenarios/test_traffic.py::test
    shift
    CHAIN_FIRST_EXIT=$kind CHAIN_LEAK_REPEATS="${CHAIN_LEAK_REPEATS:-1}" \
        python -m pytest --durations=15 "${SELECTION[@]}" tests/scenarios/test_{"$kind",leaks,uplink,secrets}.py \
        "$traffic"_{tcp_udp_icmp_arrive_from_the_provider,names_are_resolved_through_the_exit,ipv6_is_rejected_at_once} \
        "$@"
}

# Whatever becomes of the tests, that engine ends with them.
current_engine_tests() {
    local images host code=0
    images=$(python tests/lab/build_images.py)
    # shellcheck disable=SC2086 # a list of names
    host=$(tests/lab/current-engine.sh up $images)
    trap 'tests/lab/current-engine.sh down' EXIT
    printf "this machine's: %s\n" "$(engine_version)"
    export DOCKER_HOST=$host DOCKER_CONFIG
    DOCKER_CONFIG=$(tests/lab/current-engine.sh config)
    printf 'the current one: %s\n' "$(engine_version)"
    python -m pytest tests/scenarios || code=$?
    exit "$code"
}

engine_version() {
    printf 'engine %s, Compose %s' "$(docker version --format '{{.Server.Version}} (API {{.Server.APIVersion}})')" \
        "$(docker compose version --short)"
}

vm_tests() {
    local code=0 begin=$EPOCHREALTIME
    printf '── tests in the virtual machine\n'
    start_vm
    printf '── it is ready: %s s\n' "$(seconds "$begin")"
    # With the two variables that start_vm sets, the scenarios use that engine. The last words are pytest's own.
    # What takes minutes in emulation, and is tried natively too, is left out there; LONG=1 runs all of it.
    local selection=()
    if [ "${LONG:-}" != 1 ] && ! tests/lab/vm.sh status --json | grep -q '"accelerator": "kvm"'; then
        selection=(-m "not long and not rare")
    fi
    python -m pytest --durations=15 "${selection[@]}" tests/lab tests/scenarios || code=$?
    # On CI nothing may stay behind; elsewhere the next run is quicker with it.
    if [ "${CI:-}" = true ]; then tests/lab/vm.sh down; fi
    exit "$code"
}

case ${1:-} in
    check)
        tests/lab/python.sh
        check
        ;;
    test)
        begin=$EPOCHREALTIME
        phase "Python environment" tests/lab/python.sh
        phase "checks and quick tests" check
        phase "Docker engine" tests/lab/engine.sh
        phase "base image" tests/lab/base-image.sh
        phase "network tools" tests/lab/tools.sh
        phase "images" python tests/lab/build_images.py
        phase "tests on this machine" native_tests
        phase "tests with an Xray exit" tests_with xray tests/scenarios/test_hops.py \
            tests/scenarios/test_exit_test.py::test_{in_the_chain,by_itself}
        phase "tests with an OpenVPN exit" tests_with openvpn
        printf '── so far: %s s\n' "$(seconds "$begin")"
        vm_tests
        ;;
    engines)
        phase "Python environment" tests/lab/python.sh
        phase "Docker engine" tests/lab/engine.sh
        phase "base image" tests/lab/base-image.sh
        phase "tests on a current engine" current_engine_tests
        ;;
    soak)
        shift
        tests/lab/engine.sh
        tests/lab/base-image.sh
        if [ "${VM:-}" = 1 ]; then start_vm; fi
        exec python tests/scenarios/soak.py "$@"
        ;;
    failover)
        shift
        tests/lab/engine.sh
        tests/lab/base-image.sh
        if [ "${VM:-}" = 1 ]; then start_vm; fi
        exec python bench/failover.py "$@"
        ;;
    lab)
        tests/lab/python.sh
        tests/lab/engine.sh
        tests/lab/base-image.sh
        start_vm
        printf 'export CHAIN_LAB_HOST=%q CHAIN_LAB_SHARE=%q\n' "$CHAIN_LAB_HOST" "$CHAIN_LAB_SHARE"
        echo "With that, .venv/bin/pytest tests/scenarios runs there; and so does docker, with DOCKER_HOST=$CHAIN_LAB_HOST."
        ;;
    *)
        sed -n '3,10s/^#//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
