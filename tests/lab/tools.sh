#!/usr/bin/env bash
# Makes sure that this machine has the programs that the tests in network
# namespaces (tests/netns) call.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# = 0 ] || die "usage: $0" 2
absent=no
for program in ip nft sysctl unshare; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || absent=yes
done
[ "$absent" = yes ] || exit 0
begin_log tools
need_tools iproute2 nftables procps util-linux
