from __future__ import annotations

import configparser
from typing import TYPE_CHECKING

from chain.config.models import Endpoint
from chain.render.clients import KEEPALIVE, client_config
from chain.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from chain.topology import Topology

CLIENT = "clients:\n  phone: {address: 10.13.13.2, public_key: posD+Btwgg+OkMFbBgQsYJ65IrKyFSIIhkZCQYs7xHQ=}\n"


def test_it_is_a_file_of_wg_quick_that_routes_both_families(built: Callable[[str], Topology], minimal: str) -> None:
    state = built(minimal + CLIENT).state
    text = client_config(
        state,
        state.clients[0],
        Endpoint(host="2001:db8::1", port=443),
        entry_public_key="E=",
        private_key=Secret("K="),
        preshared=Secret("P="),
    )
    parsed = configparser.ConfigParser()
    parsed.read_string(text)
    assert parsed["Interface"]["PrivateKey"] == "K="
    assert parsed["Interface"]["Address"].startswith("10.13.13.2/32, fd")
    assert dict(parsed["Peer"]) == {
        "publickey": "E=",
        "presharedkey": "P=",
        "endpoint": "[2001:db8::1]:443",
        "allowedips": "0.0.0.0/0, ::/0",
        "persistentkeepalive": str(KEEPALIVE),
    }
