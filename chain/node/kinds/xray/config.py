"""What Xray is told, as its one JSON document. It holds the credentials. Pure.

The default outbound is a black hole: what no rule sends to the server goes nowhere, and never out directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain.contract import MARK_CAPTURED_REPLY, MARK_TUNNEL

if TYPE_CHECKING:
    from collections.abc import Sequence

CAPTURE_PORT = 7500  # where the lock hands clients' packets over
DOOR_PORT = 7498  # where this container's own programs name where they want to get to
TRIAL_PORT = 7499  # of a second Xray, which asks the first target too
PROBE_PORT = 7501  # + index of the target; a connection to it comes out at that target's port for DNS
DNS_PORT = 53
LOOPBACK = "127.0.0.1"
# Xray tells a client that the far end is through only when it ends the whole connection, by default a second later: at
# once. When the client is through, the far end is not told before the end; what it may still have to say comes with
# pauses of some seconds at most.
_POLICY = {"levels": {"0": {"connIdle": 300, "uplinkOnly": 0, "downlinkOnly": 10}}}


def document(options: dict[str, Any], secret: str, server: str, targets: Sequence[str]) -> dict[str, Any]:
    """Give the whole configuration. `server` is an address; `targets` are asked through it whether it lives."""
    probes = [_probe(PROBE_PORT + index, target) for index, target in enumerate(targets)]
    return _document([_clients(), _door(), *probes], options, secret, server, "warning")


def trial(options: dict[str, Any], secret: str, server: str, target: str) -> dict[str, Any]:
    """Give that of an Xray which takes nothing from clients, and tells what becomes of each connection."""
    return _document([_probe(TRIAL_PORT, target)], options, secret, server, "info")


def _document(
    inbounds: list[dict[str, Any]], options: dict[str, Any], secret: str, server: str, level: str
) -> dict[str, Any]:
    rule = {"type": "field", "inboundTag": [inbound["tag"] for inbound in inbounds], "outboundTag": "server"}
    return {
        "log": {"loglevel": level, "access": "none", "dnsLog": False},
        "policy": _POLICY,
        "inbounds": inbounds,
        "outbounds": [{"tag": "nowhere", "protocol": "blackhole"}, _server(options, secret, server)],
        "routing": {"domainStrategy": "AsIs", "rules": [rule]},
    }


def _clients() -> dict[str, Any]:
    return {
        "tag": "clients",
        "listen": LOOPBACK,
        "port": CAPTURE_PORT,
        "protocol": "dokodemo-door",
        "settings": {"network": "tcp,udp", "followRedirect": True},
        "streamSettings": {"sockopt": {"tproxy": "tproxy", "mark": MARK_CAPTURED_REPLY}},
    }


def _door() -> dict[str, Any]:
    return {"tag": "door", "listen": LOOPBACK, "port": DOOR_PORT, "protocol": "http", "settings": {}}


def _probe(port: int, target: str) -> dict[str, Any]:
    return {
        "tag": f"probe-{port}",
        "listen": LOOPBACK,
        "port": port,
        "protocol": "dokodemo-door",
        "settings": {"network": "tcp", "address": target, "port": DNS_PORT},
    }


def _server(options: dict[str, Any], secret: str, server: str) -> dict[str, Any]:
    return {
        "tag": "server",
        "protocol": options["protocol"],
        "settings": _settings(options, secret, {"address": server, "port": options["port"]}),
        "streamSettings": options["stream"] | {"sockopt": {"mark": MARK_TUNNEL}},
    }


def _settings(options: dict[str, Any], secret: str, place: dict[str, Any]) -> dict[str, Any]:
    match options["protocol"]:
        case "vless":
            user = {"id": secret, "encryption": options["encryption"], "flow": options["flow"]}
            return {"vnext": [place | {"users": [user]}]}
        case "vmess":
            return {"vnext": [place | {"users": [{"id": secret, "security": options["cipher"]}]}]}
        case "trojan":
            return {"servers": [place | {"password": secret}]}
        case "shadowsocks":
            return {"servers": [place | {"password": secret, "method": options["cipher"]}]}
    raise ValueError(f"Xray speaks no {options['protocol']}")
