# shellcheck shell=bash
# Shared by the scripts of the test ground; sourced, never run.

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/chain"
export CACHE
mkdir -p "$CACHE"
chmod 0700 "$CACHE"

LAB_NAME=$(basename "$0")
LAB_STEP=""
LAB_LOG=""

# The caller's own standard error, also from within a step.
exec 3>&2

say() { printf '%s: %s\n' "$LAB_NAME" "$*" >&3; }

# die MESSAGE [CODE]; code 3 means "somebody has to do something first".
die() {
    say "$1"
    LAB_STEP=""
    exit "${2:-1}"
}

# Removes what a script left half done; scripts put their own over it.
cleanup() { :; }

lab_exit() {
    local code=$?
    set +e
    trap - EXIT
    if [ -n "$LAB_STEP" ] && [ "$code" -ne 0 ]; then
        say "failed: $LAB_STEP (exit code $code)"
        if [ -n "$LAB_LOG" ]; then
            say "the end of $LAB_LOG:"
            tail -n 25 "$LAB_LOG" >&3
        fi
    fi
    cleanup
    exit "$code"
}
trap lab_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# begin_log NAME: what the steps print goes to this file, anew at each run.
begin_log() {
    LAB_LOG="$CACHE/$1.log"
    : >"$LAB_LOG"
}

# step "what is done" COMMAND...: runs it with its output in the log, tells how
# long it took, and ends the script with the log's tail if it fails. (Not to be
# used in a condition: there the shell would no longer stop at an error.)
step() {
    local what=$1 begin=$EPOCHREALTIME
    shift
    LAB_STEP=$what
    say "$what ..."
    "$@" >>"${LAB_LOG:-/dev/null}" 2>&1
    LAB_STEP=""
    say "$what: $(elapsed "$begin") s"
}

# elapsed BEGIN: seconds since then, with one digit behind the point.
elapsed() {
    local tenths=$(((${EPOCHREALTIME/./} - ${1/./}) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

# wait_for SECONDS COMMAND...: until it succeeds; fails after that time.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

# consent TEXT: lists what is going to be installed or changed; asks once on a
# terminal, goes ahead without one or with YES=1.
LAB_CONSENT=no
consent() {
    say "$1"
    [ "$LAB_CONSENT" = no ] || return 0
    LAB_CONSENT=yes
    if [ "${YES:-}" = 1 ] || ! [ -t 0 ] || ! [ -t 3 ]; then
        return 0
    fi
    local answer
    printf '%s: go ahead? [y/N] ' "$LAB_NAME" >&3
    read -r answer
    case $answer in
        [yY] | [yY][eE][sS]) ;;
        *) die "nothing was changed" 3 ;;
    esac
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "this needs root: run it as root or install sudo" 3
    fi
}

# one_at_a_time NAME: a second run waits for the first one. Whatever stays
# behind in the background must be started with 9>&- (and 3>&-).
one_at_a_time() {
    exec 9>"$CACHE/$1.lock"
    if ! flock -n 9; then
        say "another run is at it: waiting for it"
        flock -w 1800 9 || die "the other run did not end within 30 minutes"
    fi
}

# hash_of FILE|=TEXT...: a short hash of files' contents and of given texts.
hash_of() {
    local item
    for item; do
        case $item in
            =*) printf 'text %s\n' "${item#=}" ;;
            *) printf 'file %s\n' "$(sha256sum <"$item")" ;;
        esac
    done | sha256sum | cut -c1-16
}

os_field() { (. /etc/os-release && eval "printf '%s' \"\${$1:-}\""); }

is_debian() { [ "$(os_field ID)" = debian ] && command -v apt-get >/dev/null; }

# "URI FILE:LINE" of the source which this machine's own release comes from.
main_source() {
    local release component site source
    local format="\$(RELEASE)|\$(COMPONENT)|\$(REPO_URI)|\$(SOURCESENTRY)"
    while IFS='|' read -r release component site source; do
        if [ "$release" = "$(os_field VERSION_CODENAME)" ] && [ "$component" = main ]; then
            printf '%s %s\n' "${site%/}" "$source"
            return
        fi
    done < <(apt-get indextargets --format "$format" 'Created-By: Packages' 2>/dev/null)
}

# "URI KEYRING" of the Debian mirror which this machine itself uses, whichever
# of its two styles the source is written in. CHAIN_LAB_MIRROR overrides the URI.
debian_mirror() {
    local line uri='' entry='' file keyring=''
    read -r uri entry < <(main_source) || true
    if [ -z "$uri" ]; then
        # Apt names no source whose list it has not fetched, and images of machines are often without any.
        apt_get update >&2 || true
        read -r uri entry < <(main_source) || true
    fi
    uri=${CHAIN_LAB_MIRROR:-$uri}
    [ -n "$uri" ] || die "no Debian mirror in this machine's apt configuration: set CHAIN_LAB_MIRROR to its URI" 3
    file=${entry%:*}
    if [ -f "$file" ]; then
        line=$(grep -m1 -oE '([Ss]igned-[Bb]y: *|signed-by=)/[^] ]+' "$file" || true)
        [ -z "$line" ] || keyring=/${line#*/}
    fi
    if ! [ -f "$keyring" ]; then
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    fi
    [ -f "$keyring" ] || die "no keyring of Debian's archive: install debian-archive-keyring" 3
    printf '%s %s\n' "$uri" "$keyring"
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ]; }

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 "$@" 9>&-
}

# apt_install PACKAGE[/RELEASE]...: fetches the package lists only when they
# turn out to be missing or out of date.
apt_install() {
    if ! apt_get install --no-install-recommends "$@"; then
        # A source of somebody else's that fails must not stop ours.
        apt_get update || true
        apt_get install --no-install-recommends "$@"
    fi
}

# need_tools PACKAGE...: installs those that are missing.
need_tools() {
    local package missing=()
    for package; do
        installed "$package" || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    is_debian || die "install these first (names as in Debian): ${missing[*]}" 3
    consent "going to install Debian packages: ${missing[*]}"
    step "installing ${missing[*]}" apt_install "${missing[@]}"
}
