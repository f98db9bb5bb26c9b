#!/usr/bin/env bash
# A Docker host with a stock Debian kernel in a QEMU VM, for tests that need what
# the kernel at hand lacks (PPP, L2TP, ESP, WireGuard).
#
#   vm.sh up [IMAGE...]     start it, with these images of the local engine in it;
#                           prints its DOCKER_HOST and nothing else
#   vm.sh down              switch it off; everything in it but the images is gone
#   vm.sh reset             as if its power had failed for a moment: what is in it stays
#   vm.sh status [--json]   is it running, where, how, with which images
#   vm.sh host              its DOCKER_HOST
#   vm.sh share             the folder that it has at the same path
#   vm.sh log               its console
#   vm.sh purge             switch it off and remove its disks
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RELEASE=trixie
PACKAGES=(docker.io iproute2 iptables nftables kmod procps mount ca-certificates initramfs-tools linux-image-amd64)
# Folders of the kernel's drivers/ that no VM needs.
NO_DRIVERS=(accel accessibility ata atm bluetooth bus char/agp comedi crypto/qat edac extcon firewire gpio gpu hid
    hwmon i2c iio infiniband input isdn leds macintosh md media memstick message mfd misc mmc mtd net/can
    net/ethernet net/fddi net/hamradio net/ieee802154 net/phy net/usb net/wan net/wireless net/wwan nfc ntb nvme parport
    pcmcia pinctrl platform power regulator rtc scsi soundwire spi ssb staging target thunderbolt tty ufs usb vfio video)
DISK_SIZE=12G
FULL_MB=8000
BOOT_SECONDS=${CHAIN_LAB_BOOT_SECONDS:-240}
TRIAL_SECONDS=12

DIR="$CACHE/vm"
SHARE="$CACHE/share"
DISK="$DIR/docker.img"
LISTED="$DIR/docker.list"
PIDFILE="$DIR/pid"
PORTFILE="$DIR/port"
CONSOLE="$DIR/console.log"
MONITOR=monitor # in DIR, and named from there: a socket's path may not be long
ROOTHASH=$(hash_of "$HERE/vm/init" "$HERE/vm/modules" "=$RELEASE" "=${PACKAGES[*]}" "=${NO_DRIVERS[*]}")
ROOT="$DIR/root-$ROOTHASH"

mkdir -p "$DIR" "$SHARE"
chmod 0700 "$DIR" "$SHARE"

# --- what is running -------------------------------------------------------

# The process in the pid file, if it is our VM and not another one by chance.
vm_pid() {
    local pid
    pid=$(cat "$PIDFILE" 2>/dev/null) && [ -n "$pid" ] &&
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "-pidfile $PIDFILE " && echo "$pid"
}

vm_host() { echo "tcp://127.0.0.1:$(cat "$PORTFILE")"; }

in_vm() { env -u DOCKER_CONTEXT -u DOCKER_TLS_VERIFY DOCKER_HOST="$(vm_host)" docker "$@"; }

vm_answers() { timeout 10 docker -H "$(vm_host)" version >/dev/null 2>&1; }

vm_current() { vm_pid >/dev/null && [ "$(cat "$DIR/running" 2>/dev/null)" = "$ROOTHASH" ] && vm_answers; }

gone() { ! [ -d "/proc/$1" ]; }

stop_vm() {
    local pid
    pid=$(vm_pid) || return 0
    # Nothing in it needs a farewell: its disks are thrown-away copies.
    kill "$pid" 2>/dev/null || true
    wait_for 10 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    wait_for 10 gone "$pid"
    rm -f "$PIDFILE"
}

# --- the root disk ---------------------------------------------------------

make_root() {
    local mirror keyring driver options=()
    for driver in "${NO_DRIVERS[@]}"; do
        options+=("--dpkgopt=path-exclude=/usr/lib/modules/*/kernel/drivers/$driver/*")
    done
    read -r mirror keyring < <(debian_mirror)
    as_root rm -rf "$ROOT.part"
    mkdir "$ROOT.part"
    # shellcheck disable=SC2016 # the hook is given its $1 later
    as_root mmdebstrap --mode=root --variant=minbase --keyring="$keyring" --include="$(IFS=, && echo "${PACKAGES[*]}")" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/lib/modules/*/kernel/sound/*' "${options[@]}" \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"' \
        --essential-hook='printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/lab"' \
        --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/usr/share/initramfs-tools/modules.d/lab"' \
        --customize-hook="install -m 755 '$HERE/vm/init' \"\$1/lab-init\"" \
        --customize-hook="install -m 644 '$HERE/vm/modules' \"\$1/lab-modules\"" \
        --customize-hook='printf "127.0.0.1 localhost\n::1 localhost\n" >"$1/etc/hosts"' \
        "$RELEASE" "$ROOT.part/tree" "$mirror" 9>&-
    cp -L "$ROOT.part/tree/vmlinuz" "$ROOT.part/kernel"
    as_root cat "$ROOT.part/tree/initrd.img" >"$ROOT.part/initrd"
    (cd "$ROOT.part/tree/usr/lib/modules" && echo *) >"$ROOT.part/release"
    truncate -s 3G "$ROOT.part/root.img"
    as_root mkfs.ext4 -q -F -O ^has_journal -d "$ROOT.part/tree" "$ROOT.part/root.img"
    as_root rm -rf "$ROOT.part/tree"
    mv "$ROOT.part" "$ROOT"
}

ensure_root() {
    local old
    [ -f "$ROOT/root.img" ] && return 0
    need_tools mmdebstrap e2fsprogs
    step "building the root disk (Debian $RELEASE, its kernel and engine)" make_root
    for old in "$DIR"/root-*; do
        [ "$old" = "$ROOT" ] || as_root rm -rf "$old"
    done
}

# --- the image disk --------------------------------------------------------
# Only the native engine below ever writes to it: the VM works on a thrown-away
# copy. The list beside it says what it holds, and how the disk looked then.

disk_stamp() { stat -c '%i %s %.9Y' "$DISK" 2>/dev/null || echo none; }

# The list's lines "IMAGE ID", or nothing if list and disk are not of one time.
listed() {
    if [ -f "$LISTED" ] && [ "$(head -n 1 "$LISTED")" = "disk $(disk_stamp)" ]; then
        tail -n +2 "$LISTED"
    fi
}

# "IMAGE ID" of each image that is asked for, as the local engine has it.
wanted() {
    local image id
    for image; do
        case ${image##*/} in
            *:* | *@*) ;;
            *) image=$image:latest ;;
        esac
        id=$(docker image inspect --format '{{.Id}}' "$image" 2>/dev/null) ||
            die "the local engine has no image '$image' to put into the VM"
        echo "$image $id"
    done
}

# Which of the lines WANTED the disk doesn't have.
lacking() { grep -vxF -f <(listed) <<<"$1" | grep . || true; }

unlooped() { [ -z "$(as_root losetup -j "$DISK")" ]; }

# The namespaces keep the lock of this run (fd 9) for as long as they live.
load_images() {
    # What a run that was killed has left behind.
    find /tmp -maxdepth 1 -name 'chain-fill.*' -user "$(id -u)" -print0 | as_root xargs -0r rm -rf --one-file-system
    # Sockets have short paths, so it can't be in the cache.
    fill_folder=$(mktemp -d /tmp/chain-fill.XXXXXX)
    docker save "$@" | as_root unshare --net --mount --pid --fork --kill-child --mount-proc \
        "$HERE/vm/fill" "$DISK" "$fill_folder" "$@"
    wait_for 10 unlooped
    as_root rm -rf "$fill_folder"
    fill_folder=""
}

fill_disk() {
    local want=$1 lack=$2 keep images
    command -v dockerd >/dev/null ||
        die "images are put into the VM by a second dockerd on this machine, and there is none (packages docker.io or docker-ce)" 3
    keep=$(listed)
    # Unknown contents, or nearly full: begin anew with what is asked for.
    if [ -z "$keep" ] || [ "$(du -m "$DISK" | cut -f1)" -gt "$FULL_MB" ]; then
        keep="" lack=$want
        rm -f "$DISK"
        truncate -s "$DISK_SIZE" "$DISK"
        mkfs.ext4 -q -F -m 0 "$DISK" >>"$LAB_LOG"
    fi
    rm -f "$LISTED"
    mapfile -t images < <(cut -d' ' -f1 <<<"$lack" | sort -u)
    step "putting ${#images[@]} image(s) on the VM's disk" load_images "${images[@]}"
    {
        echo "disk $(disk_stamp)"
        # A name that was loaded again no longer stands for the old image.
        awk 'NR == FNR { new[$1]; next } !($1 in new)' <(echo "$lack") <(echo "$keep") | grep . || true
        sort -u <<<"$lack"
    } >"$LISTED.part"
    mv "$LISTED.part" "$LISTED"
}

empty_disk() {
    truncate -s "$DISK_SIZE" "$DISK"
    mkfs.ext4 -q -F -m 0 "$DISK"
    echo "disk $(disk_stamp)" >"$LISTED"
}

fill_folder=""
cleanup() {
    if [ -n "$fill_folder" ]; then as_root rm -rf --one-file-system "$fill_folder"; fi
}

# --- the machine -----------------------------------------------------------

# Does KVM run this kernel? A /dev/kvm that is there need not be able to.
trial_boot() {
    timeout "$TRIAL_SECONDS" qemu-system-x86_64 -accel kvm -cpu host -m 512 -nodefaults -display none -no-reboot \
        -serial stdio -kernel "$ROOT/kernel" -initrd "$ROOT/initrd" \
        -append "console=ttyS0 panic=-1 rdinit=/usr/bin/false" </dev/null >"$DIR/trial.log" 2>&1 9>&- || true
    if grep -q 'as init process' "$DIR/trial.log"; then echo kvm; else echo tcg; fi
}

# Sets ACCEL; a verdict is kept for as long as both kernels stay the same.
choose_accelerator() {
    local key begin=$EPOCHREALTIME
    key="$(cat "$ROOT/release") on $(uname -srvm)"
    ACCEL=${CHAIN_LAB_ACCEL:-}
    [ -z "$ACCEL" ] || return 0
    if ! [ -w /dev/kvm ]; then
        ACCEL=tcg
        if [ -e /dev/kvm ]; then say "this user may not use /dev/kvm: the VM will be emulated, which is slow"; fi
        return 0
    fi
    if [ "$(tail -n 1 "$DIR/accelerator" 2>/dev/null)" != "$key" ]; then
        say "trying whether KVM works here ..."
        printf '%s\n' "$(trial_boot)" "$key" >"$DIR/accelerator.part"
        mv "$DIR/accelerator.part" "$DIR/accelerator"
        say "trying whether KVM works here: $(head -n 1 "$DIR/accelerator") is used ($(elapsed "$begin") s)"
    fi
    ACCEL=$(head -n 1 "$DIR/accelerator")
}

taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

choose_port() {
    local port
    port=$(cat "$PORTFILE" 2>/dev/null || echo 0)
    while [ "$port" -lt 1024 ] || taken "$port"; do
        port=$((20000 + RANDOM % 12000))
    done
    echo "$port" >"$PORTFILE"
}

ready() {
    vm_pid >/dev/null || return 0
    grep -q 'API listen on \[::\]:2375' "$CONSOLE" && grep -q 'modules are loaded' "$CONSOLE" && vm_answers
}

boot() {
    local cores how
    cores=$(nproc)
    [ "$cores" -le 4 ] || cores=4
    case $ACCEL in
        kvm) how=(-accel kvm -cpu host) ;;
        *) how=(-accel 'tcg,thread=multi,tb-size=512' -cpu max) ;;
    esac
    rm -f "$CONSOLE" "$DIR/running"
    # snapshot=on: what the VM writes goes into a nameless file in TMPDIR.
    cd "$DIR"
    TMPDIR="$DIR" qemu-system-x86_64 "${how[@]}" -smp "$cores" -m 3072 -nodefaults -display none -no-reboot \
        -name chain-lab -daemonize -pidfile "$PIDFILE" \
        -chardev "file,id=console,path=$CONSOLE,append=on" -serial chardev:console -qmp "unix:$MONITOR,server=on,wait=off" \
        -kernel "$ROOT/kernel" -initrd "$ROOT/initrd" \
        -append "console=ttyS0 quiet panic=-1 root=/dev/vda rw rootflags=noinit_itable init=/lab-init mitigations=off apparmor=0 audit=0 lab.share=$SHARE" \
        -drive "file=$ROOT/root.img,format=raw,if=virtio,snapshot=on,cache=unsafe" \
        -drive "file=$DISK,format=raw,if=virtio,snapshot=on,cache=unsafe" \
        -netdev "user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:$(cat "$PORTFILE")-:2375" \
        -device virtio-net-pci,netdev=n0,romfile= \
        -object rng-random,filename=/dev/urandom,id=r0 -device virtio-rng-pci,rng=r0 \
        -virtfs "local,path=$SHARE,mount_tag=share,security_model=none,multidevs=remap" \
        </dev/null 3>&- 9>&-
    if ! wait_for "$BOOT_SECONDS" ready || ! vm_pid >/dev/null; then
        stop_vm
        echo "the VM did not come up within $BOOT_SECONDS s; the end of its console:"
        tail -n 40 "$CONSOLE"
        return 1
    fi
    echo "$ROOTHASH" >"$DIR/running"
}

# The network card on the way in is QEMU's own and stays, and so do the disks' thrown-away copies.
reset() {
    : >"$CONSOLE"
    cd "$DIR"
    python3 - "$MONITOR" <<'PYTHON'
import json, socket, sys

with socket.socket(socket.AF_UNIX) as monitor:
    monitor.connect(sys.argv[1])
    answers = monitor.makefile()
    answers.readline()
    for command in (
        {"execute": "qmp_capabilities"},
        {"execute": "set-action", "arguments": {"reboot": "reset"}},
        {"execute": "system_reset"},
    ):
        monitor.sendall(json.dumps(command).encode() + b"\n")
        while "return" not in (answer := json.loads(answers.readline())):
            if "error" in answer:
                raise SystemExit(f"{command}: {answer['error']}")
PYTHON
    wait_for "$BOOT_SECONDS" ready
}

# --- the verbs -------------------------------------------------------------

up() {
    local want lack
    # A call from where DOCKER_HOST already is the VM means the engine beside it.
    if [ -f "$PORTFILE" ] && [ "${DOCKER_HOST:-}" = "$(vm_host)" ]; then unset DOCKER_HOST; fi
    want=$(wanted "$@")
    if [ -z "$(lacking "$want")" ] && vm_current; then
        vm_host
        return 0
    fi
    case "$(uname -m) $CACHE" in
        x86_64\ *[\ ,]*) die "the cache folder's path must have no space and no comma: $CACHE" ;;
        x86_64\ *) ;;
        *) die "the VM is for x86_64 machines" 3 ;;
    esac
    one_at_a_time vm
    begin_log vm
    command -v qemu-system-x86_64 >/dev/null || need_tools qemu-system-x86
    ensure_root
    lack=$(lacking "$want")
    if [ -n "$lack" ]; then
        stop_vm
        fill_disk "$want" "$lack"
    elif [ -z "$(head -n 1 "$LISTED" 2>/dev/null)" ] || [ "$(head -n 1 "$LISTED")" != "disk $(disk_stamp)" ]; then
        stop_vm
        rm -f "$DISK"
        step "making an empty disk for images" empty_disk
    fi
    if ! vm_current; then
        stop_vm
        choose_accelerator
        choose_port
        step "starting the VM ($ACCEL)" boot
    fi
    vm_host
}

status() {
    local pid state=stopped host='' accel='' image id held=''
    if pid=$(vm_pid); then
        state=starting
        if vm_answers; then state=running; fi
        host=$(vm_host)
        accel=$(tr '\0' '\n' <"/proc/$pid/cmdline" | grep -m1 -oE '^(kvm|tcg)')
    fi
    if [ "${1:-}" = --json ]; then
        while read -r image id; do
            held+="${held:+, }\"$image\": \"$id\""
        done < <(listed)
        printf '{"state": "%s", "pid": %s, "host": "%s", "accelerator": "%s", "share": "%s", "images": {%s}}\n' \
            "$state" "${pid:-null}" "$host" "$accel" "$SHARE" "$held"
        return 0
    fi
    echo "state:       $state"
    if [ "$state" != stopped ]; then
        echo "host:        $host"
        echo "accelerator: $accel"
        echo "process:     $pid"
    fi
    echo "share:       $SHARE"
    echo "images:"
    listed | sed 's/^/  /'
}

verb=${1:-}
[ $# = 0 ] || shift
case $verb in
    up) up "$@" ;;
    down)
        one_at_a_time vm
        stop_vm
        ;;
    reset)
        vm_pid >/dev/null || die "the VM is not running" 1
        begin_log vm
        step "resetting the VM" reset
        ;;
    status) status "$@" ;;
    host)
        vm_pid >/dev/null || die "the VM is not running" 1
        vm_host
        ;;
    share) echo "$SHARE" ;;
    log)
        [ -f "$CONSOLE" ] || die "the VM was never started" 1
        cat "$CONSOLE"
        ;;
    purge)
        one_at_a_time vm
        stop_vm
        as_root rm -rf "$DIR" "$SHARE"
        ;;
    *)
        sed -n '/^#   vm/,/^set/{/^#/s/^#   //p}' "${BASH_SOURCE[0]}" >&3
        die "which of them?" 2
        ;;
esac
