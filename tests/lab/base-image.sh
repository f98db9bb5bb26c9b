#!/usr/bin/env bash
# Makes sure that the engine has the image debian:trixie-slim, which all others
# are built from: the official one, or, on a machine where nothing can be pulled,
# one of the same name made from Debian's packages.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

IMAGE=debian:trixie-slim
RELEASE=trixie
PULL_SECONDS=20

have_image() { docker image inspect "$IMAGE" >/dev/null 2>&1; }

make_root() {
    local file=$1 mirror keyring
    read -r mirror keyring < <(debian_mirror)
    # Like the slim image: no documentation, no translations, no kept packages.
    as_root mmdebstrap --variant=minbase --include=ca-certificates --keyring="$keyring" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
        --aptopt='Acquire::Languages "none"' \
        --aptopt='DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; }' \
        "$RELEASE" - "$mirror" 9>&- >"$file.part"
    mv "$file.part" "$file"
}

import_root() {
    docker import --change 'CMD ["bash"]' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$1" "$IMAGE"
}

[ $# = 0 ] || die "usage: $0   (makes sure that the engine has $IMAGE)" 2
have_image && exit 0
docker version >/dev/null 2>&1 || die "no Docker engine answers: run $(dirname "$0")/engine.sh first" 3
one_at_a_time base-image
have_image && exit 0
begin_log base-image

begin=$EPOCHREALTIME
say "pulling $IMAGE (for at most $PULL_SECONDS s) ..."
if timeout "$PULL_SECONDS" docker pull -q "$IMAGE" >>"$LAB_LOG" 2>&1; then
    say "pulling $IMAGE: $(elapsed "$begin") s"
    exit 0
fi
say "it can't be pulled ($(elapsed "$begin") s): making it from Debian's packages"
root="$CACHE/base-$RELEASE-$(hash_of "${BASH_SOURCE[0]}").tar"
if ! [ -f "$root" ]; then
    rm -f "$CACHE/base-$RELEASE-"*
    need_tools mmdebstrap
    step "building a minimal Debian $RELEASE" make_root "$root"
fi
step "importing it as $IMAGE" import_root "$root"
