#!/usr/bin/env bash
# A current Docker engine beside the machine's own one, in namespaces of its own,
# and a current Compose, so that the scenarios also run on what most people have.
#
#   current-engine.sh up [IMAGE...]   start it, with these images of the local engine
#                                     in it; prints its DOCKER_HOST and nothing else
#   current-engine.sh down            end it; everything in it but the images is gone
#   current-engine.sh status          is it running, where, which version
#   current-engine.sh host            its DOCKER_HOST
#   current-engine.sh config          a DOCKER_CONFIG with which docker finds that Compose
#   current-engine.sh log             what it says
#   current-engine.sh purge           end it and remove its programs and images
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/current-engine
START_SECONDS=60
END_SECONDS=30

DIR="$CACHE/current-engine-$(hash_of "$HERE/Dockerfile")"
# Sockets have short paths, so they can't be in the cache; two caches on one machine have an engine each.
RUN="/run/chain-engine-$(hash_of "=$CACHE" | cut -c1-8)"
LOG="$CACHE/current-engine.dockerd.log"
HOST="unix://$RUN/docker.sock"

# --- what is running -------------------------------------------------------

# The process in the pid file, if it is our engine and not another one by chance.
engine_pid() {
    local pid
    pid=$(cat "$RUN/pid" 2>/dev/null) && [ -n "$pid" ] &&
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- " $RUN " && echo "$pid"
}

in_engine() { env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY DOCKER_HOST="$HOST" docker "$@"; }

engine_version() { timeout 10 env -u DOCKER_CONTEXT DOCKER_HOST="$HOST" docker version --format '{{.Server.Version}} (API {{.Server.APIVersion}})'; }

answers() { engine_version >/dev/null 2>&1; }

# Is it of these programs, and does it answer?
current() { engine_pid >/dev/null && [ "$(cat "$RUN/of" 2>/dev/null)" = "$DIR" ] && answers; }

gone() { ! [ -d "/proc/$1" ]; }

# Its images are all that it keeps.
empty_engine() {
    in_engine ps -aq | xargs -r docker -H "$HOST" rm -f -v
    in_engine network prune -f
    in_engine volume prune -a -f
}

stop_engine() {
    local pid folder
    if pid=$(engine_pid); then
        if answers; then empty_engine >>"${LAB_LOG:-/dev/null}" 2>&1; fi
        # The outermost process hears nothing; the one in its namespaces passes the word to the engine.
        as_root kill "$(cat "/proc/$pid/task/$pid/children")" 2>/dev/null || true
        wait_for "$END_SECONDS" gone "$pid" || as_root kill -KILL "$pid" 2>/dev/null || true
        wait_for 10 gone "$pid"
    fi
    as_root rm -rf --one-file-system "$RUN"
    # Its control groups have nobody in them now; there is one folder, or (version 1) one of each controller.
    for folder in /sys/fs/cgroup/"${RUN##*/}" /sys/fs/cgroup/*/"${RUN##*/}"; do
        [ ! -d "$folder" ] || as_root find "$folder" -depth -type d -exec rmdir {} +
    done
}

# --- its programs ----------------------------------------------------------

make_programs() {
    local bundle options=()
    for bundle in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
        if [ -f "$bundle" ]; then
            options=(--secret "id=ca,src=$bundle")
            break
        fi
    done
    as_root rm -rf "$DIR.part"
    # A build argument without a value is this environment's variable, if there is one.
    docker buildx build --progress plain --network host --build-arg GOPROXY --build-arg GOSUMDB "${options[@]}" \
        --output "type=local,dest=$DIR.part" "$HERE" 9>&-
    mkdir "$DIR.part/data"
    mv "$DIR.part" "$DIR"
}

ensure_programs() {
    local old
    [ -d "$DIR" ] && return 0
    docker image inspect debian:trixie-slim >/dev/null 2>&1 ||
        die "the local engine has no debian:trixie-slim: run engine.sh and base-image.sh first" 3
    step "building a current Docker engine and Compose (takes 5 to 10 minutes on two cores)" make_programs
    stop_engine  # which may be an older one
    for old in "$CACHE"/current-engine-????????????????; do
        [ "$old" = "$DIR" ] || as_root rm -rf --one-file-system "$old"
    done
}

# What it calls beyond its own programs.
ensure_tools() {
    local program
    for program in ip iptables unshare; do
        PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || need_tools iproute2 iptables util-linux
    done
}

start_engine() {
    as_root mkdir -p "$RUN"
    echo "$DIR" | as_root tee "$RUN/of" >/dev/null
    as_root setsid --fork "$HERE/start" "$DIR/bin" "$DIR/data" "$RUN" "$(id -gn)" </dev/null >"$LOG" 2>&1 3>&- 9>&-
    if ! wait_for "$START_SECONDS" answers; then
        stop_engine
        echo "the engine did not answer within $START_SECONDS s; the end of $LOG:"
        tail -n 30 "$LOG"
        return 1
    fi
}

# --- its images ------------------------------------------------------------

# What tells two images of one name apart. Identities can't: the two engines' stores count them differently.
made_of() { "$1" image inspect --format '{{.Created}} {{json .RootFS.Layers}}' "$2" 2>/dev/null; }

# Which of the images it doesn't have as the local engine has them now.
lacking() {
    local image there
    for image; do
        there=$(made_of docker "$image") || die "the local engine has no image '$image' to put into the current one"
        [ "$(made_of in_engine "$image")" = "$there" ] || echo "$image"
    done
}

load_images() {
    docker save "$@" | in_engine load
    in_engine image prune -f  # what a name stood for before
}

# --- the verbs -------------------------------------------------------------

up() {
    local lack
    # A call from where DOCKER_HOST already is this engine means the one beside it.
    if [ "${DOCKER_HOST:-}" = "$HOST" ]; then unset DOCKER_HOST; fi
    one_at_a_time current-engine
    begin_log current-engine
    ensure_tools
    ensure_programs
    if ! current; then
        stop_engine
        step "starting the current Docker engine" start_engine
    fi
    lack=$(lacking "$@")
    if [ -n "$lack" ]; then
        # shellcheck disable=SC2086 # a list of names
        step "giving it $(wc -l <<<"$lack") image(s)" load_images $lack
    fi
    echo "$HOST"
}

status() {
    local pid
    if ! pid=$(engine_pid); then
        echo "state:   stopped"
        return 0
    fi
    echo "state:   $(if answers; then echo running; else echo starting; fi)"
    echo "host:    $HOST"
    echo "version: $(engine_version 2>/dev/null)"
    echo "process: $pid"
}

# The plugins of the user's own folder stay, but for Compose.
config() {
    local plugin name
    [ -d "$DIR" ] || die "it has not been built: \`up\` does that" 1
    for plugin in "${DOCKER_CONFIG:-$HOME/.docker}"/cli-plugins/*; do
        name=$DIR/config/cli-plugins/${plugin##*/}
        if [ -e "$plugin" ] && ! [ -e "$name" ]; then ln -sfn "$plugin" "$name"; fi
    done
    echo "$DIR/config"
}

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
    up) up "$@" ;;
    down)
        one_at_a_time current-engine
        begin_log current-engine
        stop_engine
        ;;
    status) status ;;
    host)
        engine_pid >/dev/null || die "the current engine is not running" 1
        echo "$HOST"
        ;;
    config) config ;;
    log)
        [ -f "$LOG" ] || die "the current engine was never started" 1
        cat "$LOG"
        ;;
    purge)
        one_at_a_time current-engine
        stop_engine
        as_root rm -rf --one-file-system "$CACHE"/current-engine-???????????????? "$LOG"
        ;;
    *)
        sed -n '/^#   current/,/^set/{/^#/s/^#   //p}' "${BASH_SOURCE[0]}" >&3
        die "which of them?" 2
        ;;
esac
