"""The kinds of exits, as the host sees them. To add one: write its module and add one line to `_KINDS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.exits.direct import Direct
from chain.exits.l2tp import L2tp
from chain.exits.openvpn import OpenVpn
from chain.exits.wireguard import WireGuard
from chain.exits.xray import Xray

if TYPE_CHECKING:
    from chain.config.models import ExitConfig
    from chain.exits.base import ExitKind

_KINDS: tuple[ExitKind, ...] = (L2tp(), WireGuard(), OpenVpn(), Xray(), Direct())

REGISTRY: dict[str, ExitKind] = {kind.name: kind for kind in _KINDS}
SETTINGS: dict[str, type[ExitConfig]] = {kind.name: kind.settings for kind in _KINDS}
