"""What the engine's kernel can do, found out by doing it: names of modules say little, and some load at first use.

Runs in a container of its own without a network, with NET_ADMIN, and with the host's /dev under /host-dev.
"""

from __future__ import annotations

import json
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chain.node.run import succeeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_DEVICES = (Path("/host-dev"), Path("/dev"))
_TRIAL = "chain-check"  # the name of what is made only to see whether it can be made
_AF_PPPOX, _PX_PROTO_OL2TP = 24, 1
_NETLINK_XFRM = 6

_AES_CBC = ("enc", "cbc(aes)", "0x" + "01" * 32, "auth-trunc", "hmac(sha256)", "0x" + "02" * 32, "128")
_AES_GCM = ("aead", "rfc4106(gcm(aes))", "0x" + "03" * 36, "128")
_TRIAL_SA = ("src", "192.0.2.1", "dst", "192.0.2.2", "proto", "esp", "spi", "0x1000")


def report(names: Iterable[str]) -> int:
    """Print one JSON object, check → bool, for the named checks, or for all; an unknown one is false."""
    wanted = list(names) or list(CHECKS)
    sys.stdout.write(json.dumps({name: _passes(name) for name in wanted}) + "\n")
    return 0


def _passes(name: str) -> bool:
    check = CHECKS.get(name)
    return check is not None and check()


def has_device(name: str, folders: Iterable[Path] = _DEVICES) -> bool:
    """Tell whether the host has a device; opening it is not for this container."""
    for folder in folders:
        try:
            if stat.S_ISCHR((folder / name).stat().st_mode):
                return True
        except OSError:
            continue
    return False


def has_socket(family: int, kind: int, protocol: int) -> bool:
    """Tell whether the kernel makes such sockets; asking loads the module, where there is one."""
    try:
        socket.socket(family, kind, protocol).close()
    except OSError:
        return False
    return True


def _has_wireguard() -> bool:
    made = succeeds("ip", "link", "add", _TRIAL, "type", "wireguard")
    return made and succeeds("ip", "link", "delete", _TRIAL)


def _has_xfrm() -> bool:
    return has_socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM) and succeeds("ip", "xfrm", "state")


def _has_esp() -> bool:
    """Try both ways to build ESP: a cipher with a separate authentication, and one that does both."""
    return all(
        succeeds("ip", "xfrm", "state", "add", *_TRIAL_SA, "mode", "transport", *algorithms)
        and succeeds("ip", "xfrm", "state", "delete", *_TRIAL_SA)
        for algorithms in (_AES_CBC, _AES_GCM)
    )


def _has_tproxy() -> bool:
    """Load a rule that hands packets over, and take it away again."""
    rule = "tcp dport 1 tproxy ip to 127.0.0.1:1 meta mark set 1 accept"
    chain = f"chain c {{ type filter hook prerouting priority mangle; {rule}; }};"
    made = succeeds("nft", f"add table inet {_TRIAL}; table inet {_TRIAL} {{ {chain} }}")
    return made and succeeds("nft", f"delete table inet {_TRIAL}")


CHECKS: dict[str, Callable[[], bool]] = {
    "tun": lambda: has_device("net/tun"),
    "wireguard": _has_wireguard,
    "ppp": lambda: has_device("ppp"),
    "l2tp": lambda: has_socket(_AF_PPPOX, socket.SOCK_DGRAM, _PX_PROTO_OL2TP),
    "xfrm": _has_xfrm,
    "esp": _has_esp,
    "tproxy": _has_tproxy,
}
