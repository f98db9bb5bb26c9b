"""What differs between this machine's engine and the one in the virtual machine."""

from __future__ import annotations

from dataclasses import dataclass

from world import TESTS, Provider, Site


@dataclass(frozen=True)
class Ground:
    """Where the scenarios run. `patience` multiplies every bound: emulation is about 15 times slower."""

    site: Site
    preferred: Provider  # of the exit `paris`, first in the group
    l2tp: bool
    repeats: int
    rate: int  # packets a second of each stream
    patience: float


NATIVE = Ground(TESTS, TESTS.wireguard, l2tp=False, repeats=10, rate=400, patience=1.0)
# Emulated, each repeat takes a minute; CHAIN_LEAK_REPEATS asks for more.
IN_LAB = Ground(TESTS, TESTS.l2tp, l2tp=True, repeats=1, rate=40, patience=5.0)
