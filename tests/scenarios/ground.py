"""What differs between this machine's engine and the one in the virtual machine, and between kinds of exits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from world import TESTS, Provider, Site

LONG = os.environ.get("LONG") == "1"  # each step is tried, for as long as it takes


@dataclass(frozen=True)
class Ground:
    """Where the scenarios run. `patience` multiplies every bound: emulation is about 15 times slower."""

    site: Site
    kind: str  # of the exit `paris`, first in the group
    preferred: Provider  # of that exit
    repeats: int
    rate: int  # packets a second of each stream
    patience: float

    @property
    def l2tp(self) -> bool:
        return self.kind == "l2tp"

    @property
    def xray(self) -> bool:
        return self.kind == "xray"

    @property
    def openvpn(self) -> bool:
        return self.kind == "openvpn"


NATIVE = Ground(TESTS, "wireguard", TESTS.wireguard, repeats=3, rate=400, patience=1.0)
# CHAIN_LEAK_REPEATS asks for more, as `make soak` does; emulated, each repeat takes a minute.
IN_LAB = Ground(TESTS, "l2tp", TESTS.l2tp, repeats=1, rate=40, patience=5.0)


def here(lab: str | None, kind: str | None) -> Ground:
    """Give the ground of this run: where it is, and the preferred exit's kind if it is not the usual one."""
    usual = IN_LAB if lab else NATIVE
    others = {"xray": TESTS.xray, "openvpn": TESTS.openvpn}
    return replace(usual, kind=kind, preferred=others[kind]) if kind in others else usual
