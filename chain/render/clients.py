"""A client's own configuration, in the form that WireGuard apps read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chain.config.models import Endpoint
    from chain.contract import Client, DesiredState
    from chain.secret import Secret

KEEPALIVE = 25  # seconds; keeps a NAT's mapping open, so that the entry can always reach the client


def client_config(
    state: DesiredState,
    client: Client,
    endpoint: Endpoint,
    *,
    entry_public_key: str,
    private_key: Secret,
    preshared: Secret,
) -> str:
    """Give the text of a wg-quick file. It holds the client's secrets: print it to its owner only."""
    return "\n".join(
        [
            "[Interface]",
            f"# {client.name}, chain {state.chain}",
            f"PrivateKey = {private_key.reveal()}",
            f"Address = {client.address}/32, {client.address6}/128",
            f"DNS = {state.address.partition('/')[0]}",
            f"MTU = {state.mtu}",
            "",
            "[Peer]",
            f"PublicKey = {entry_public_key}",
            f"PresharedKey = {preshared.reveal()}",
            f"Endpoint = {endpoint}",
            "AllowedIPs = 0.0.0.0/0, ::/0",
            f"PersistentKeepalive = {KEEPALIVE}",
            "",
        ]
    )
