from __future__ import annotations

from chain.agent.peers import peer
from chain.contract import Client


def test_a_client_is_a_peer_with_its_addresses_and_perhaps_a_shared_key() -> None:
    client = Client("phone", "public", "10.13.13.2", "fd00::2", "default", "phone")
    found = peer(client, {"phone": "shared", "tv": "another"})
    assert (found.public_key, found.preshared_key) == ("public", "shared")
    assert found.allowed == {"10.13.13.2/32", "fd00::2/128"}
    assert peer(client, {}).preshared_key == ""
