#!/usr/bin/env bash
# Makes sure that a Docker engine is there which the tests can use: engine 25 or
# newer, Compose v2, buildx. One that is good enough is left as it is.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

LEAST=25
PACKAGES=(docker.io docker-cli containerd docker-compose docker-buildx)
SOURCE=/etc/apt/sources.list.d/chain-trixie.sources
PIN=/etc/apt/preferences.d/chain-trixie
PROBLEM=""

engine_version() { timeout 10 docker version --format '{{.Server.Version}}' 2>&1; }
# The first number of a version, which some programs write with a v before it.
major() { local number=${1#v}; printf '%s' "${number%%.*}"; }
engine_up() { engine_version >/dev/null; }

# Is all there? Otherwise PROBLEM says what is wrong and KIND of which kind it is.
check() {
    local version
    KIND=absent
    if ! command -v docker >/dev/null; then
        PROBLEM="there is no docker client"
        return 1
    fi
    if ! version=$(engine_version); then
        PROBLEM="the engine does not answer: ${version##*$'\n'}"
        case $version in *"permission denied"*) KIND=denied ;; esac
        return 1
    fi
    if ! [ "$(major "$version")" -ge "$LEAST" ] 2>/dev/null; then
        PROBLEM="the engine is $version; $LEAST or newer is needed"
        KIND=old
        return 1
    fi
    KIND=plugins
    if ! version=$(docker compose version --short 2>/dev/null) || ! [ "$(major "$version")" -ge 2 ] 2>/dev/null; then
        PROBLEM="'docker compose' (version 2 or newer) is not there"
        return 1
    fi
    if ! docker buildx version >/dev/null 2>&1; then
        PROBLEM="'docker buildx' is not there"
        return 1
    fi
}

add_trixie() {
    local mirror keyring
    read -r mirror keyring < <(debian_mirror)
    printf '%s\n' "Types: deb" "URIs: $mirror" "Suites: trixie" "Components: main" "Signed-By: $keyring" |
        as_root tee "$SOURCE" >/dev/null
    printf '%s\n' "# Nothing comes from trixie unless it is asked for by name." \
        "Package: *" "Pin: release n=trixie" "Pin-Priority: 100" | as_root tee "$PIN" >/dev/null
    apt_get update -o "Dir::Etc::sourcelist=$SOURCE" -o Dir::Etc::sourceparts=/dev/null -o APT::Get::List-Cleanup=0
}

install_engine() {
    local release names=("${PACKAGES[@]}")
    if ! is_debian; then
        die "$PROBLEM. Please install Docker Engine $LEAST or newer with the Compose v2 and buildx plugins, start it, and try again (this script installs it on Debian 12 and newer only)" 3
    fi
    release=$(os_field VERSION_ID)
    command -v iptables >/dev/null || names+=(iptables)
    if [ "$release" = 12 ]; then
        consent "$PROBLEM. Going to install from Debian 13 (trixie), added as a second package source at low priority ($SOURCE, $PIN): ${names[*]}"
        if ! [ -f "$SOURCE" ] || ! [ -f "$PIN" ] || ! apt-cache show docker.io/trixie >/dev/null 2>&1; then
            step "adding Debian 13 as a package source" add_trixie
        fi
        names=("${names[@]/%//trixie}")
        names=("${names[@]/#iptables\/trixie/iptables}")
    elif [ -z "$release" ] || [ "$release" -ge 13 ]; then
        consent "$PROBLEM. Going to install Debian packages: ${names[*]}"
    else
        die "$PROBLEM. Debian $release is too old for a package of it: please install Docker Engine $LEAST or newer with the Compose v2 and buildx plugins" 3
    fi
    step "installing the Docker engine" apt_install "${names[@]}"
}

alive() { [ -f /run/docker.pid ] && [ -d "/proc/$(cat /run/docker.pid)" ] && [ "$(cat "/proc/$(cat /run/docker.pid)/comm")" = dockerd ]; }

# Without systemd all containers together weigh as much as a single thread of the
# engine; with it, each of them as much as the whole engine. This weighs as many
# as the tests run at once, where the machine allows it.
CONTAINERS=16
weigh_containers() {
    local v1=/sys/fs/cgroup/cpu/docker v2=/sys/fs/cgroup/docker
    if [ -d "${v1%/*}" ]; then
        as_root mkdir -p "$v1" && as_root tee "$v1/cpu.shares" <<<$((CONTAINERS * 1024)) >/dev/null
    elif [ -f "${v2%/*}/cgroup.subtree_control" ]; then
        as_root tee "${v2%/*}/cgroup.subtree_control" <<<+cpu >/dev/null &&
            as_root mkdir -p "$v2" && as_root tee "$v2/cpu.weight" <<<$((CONTAINERS * 100)) >/dev/null
    fi
}

start_dockerd() {
    local options=()
    [ "$(id -u)" = 0 ] || options=(--group "$(id -gn)")
    if ! alive; then
        weigh_containers || echo "containers can't be given their weight here: the engine goes first"
        as_root setsid --fork dockerd "${options[@]}" </dev/null >"$CACHE/dockerd.log" 2>&1 3>&- 9>&-
    fi
    if ! wait_for 60 engine_up; then
        tail -n 20 "$CACHE/dockerd.log"
        return 1
    fi
}

start_service() {
    as_root systemctl start docker
    wait_for 60 engine_up
}

start_engine() {
    if [ -d /run/systemd/system ]; then
        step "starting the Docker engine" start_service
    else
        step "starting the Docker engine (log: $CACHE/dockerd.log)" start_dockerd
    fi
}

# A client from elsewhere may not look where Debian's packages put the plugins.
link_plugins() {
    local plugin file
    for plugin in compose buildx; do
        docker "$plugin" version >/dev/null 2>&1 && continue
        for file in /usr/libexec/docker/cli-plugins /usr/lib/docker/cli-plugins; do
            file=$file/docker-$plugin
            [ -x "$file" ] || continue
            mkdir -p "${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins"
            ln -sfn "$file" "${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins/docker-$plugin"
        done
    done
}

case ${1:-} in
    '') ;;
    *) die "usage: $0   (makes sure that a Docker engine is there)" 2 ;;
esac

if check; then exit 0; fi
if [ -n "${DOCKER_HOST:-}" ]; then
    die "DOCKER_HOST is $DOCKER_HOST, so nothing is installed or started here; but $PROBLEM" 3
fi
if command -v docker >/dev/null && context=$(docker context show 2>/dev/null) && [ "$context" != default ]; then
    die "docker's context is '$context', so nothing is installed or started here; but $PROBLEM" 3
fi
one_at_a_time engine
if check; then exit 0; fi
begin_log engine
case $KIND in
    denied) die "$PROBLEM (may this user use the engine? being in the group 'docker' allows it)" 3 ;;
    old) die "$PROBLEM: please upgrade it, or point DOCKER_HOST at another one" 3 ;;
    plugins) install_engine ;;
    absent)
        if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then install_engine; fi
        ;;
esac
engine_up || start_engine
link_plugins
if ! check && [ "$KIND" = plugins ]; then
    install_engine
    link_plugins
fi
check || die "still not right: $PROBLEM" 3
say "the engine is ready: $(engine_version), Compose $(docker compose version --short)"
