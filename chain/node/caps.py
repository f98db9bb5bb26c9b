"""Capabilities: see who has one; give some up for good, in this process and all its children."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CAP_DAC_OVERRIDE, CAP_NET_ADMIN, CAP_NET_RAW = 1, 12, 13
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def has(capability: int, pid: int) -> bool:
    """Tell whether a process may use a capability now. Raises OSError if there is no such process."""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability & 1)


def drop(*capabilities: int) -> None:
    """Remove capabilities below 32 from the effective, permitted and inheritable sets. Raises OSError.

    The bounding set would need SETPCAP; under no-new-privileges execve regains nothing from it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    if libc.capget(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capget")
    for sets in ("effective", "permitted", "inheritable"):
        setattr(data[0], sets, getattr(data[0], sets) & ~sum(1 << each for each in capabilities))
    if libc.capset(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
