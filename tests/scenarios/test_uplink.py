"""What an exit's uplink carries: the outer packets of its tunnel and nothing else, from the first dial on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from scene import new_token, streaming, uplink_address
from world import WIREGUARD_PORT, docker, eventually

if TYPE_CHECKING:
    from ground import Ground
    from scene import Chain
    from world import World

# Long: it restarts an exit, and waits for a dial and for many packets.
pytestmark = [pytest.mark.docker, pytest.mark.long]

PCAP = "/tmp/uplink.pcap"
OUTER = {
    "l2tp": "(udp port 500 or udp port 4500 or esp)",
    "wireguard": f"(udp port {WIREGUARD_PORT})",
    "xray": "(tcp port 443)",
    "openvpn": "(udp port 1194)",
}
ENOUGH = 100  # packets of the tunnel: it was dialled and used


def test_only_the_tunnel_is_on_the_uplink(world: World, chain: Chain, ground: Ground) -> None:
    chain.answered()
    token = new_token()
    outer = OUTER[ground.kind]
    wan = f"br-{docker('network', 'inspect', '-f', '{{.Id}}', world.site.network('wan'))[:12]}"

    def read(*filters: str) -> list[str]:
        return world.exec("observer", "tcpdump", "-nn", "-r", PCAP, *filters).splitlines()

    # On the bridge that the exit's uplink is on, and for its own address only: other exits share that network.
    address = uplink_address(chain, world)
    with world.background("observer", "tcpdump", "-U", "-nn", "-i", wan, "-w", PCAP, f"host {address}"):
        started = f"test -s {PCAP} && echo yes || true"
        eventually(lambda: world.exec("observer", "sh", "-c", started).strip(), 60, "capture")
        with streaming(world, token, 50):
            # The dial belongs to it: a restarted exit keeps its address.
            docker("restart", "-t", "1", chain.container("exit-paris"))
            eventually(lambda: chain.answered()["seen"] == ground.preferred.outside, 240, "paris is used again")
            assert uplink_address(chain, world) == address
            eventually(lambda: len(read(outer)) > ENOUGH, 60, "the tunnel's packets are captured")
    # What others send to it, such as a server's ICMP errors about a daemon that was just ended, is theirs.
    # And in the first milliseconds, before there is a lock, its kernel says that nobody listens yet.
    unreachable = "icmp[icmptype] == icmp-unreach"
    names = f"(host {world.site.names_host} and udp port 53)"  # of the provider, asked before each dial
    assert read(f"src host {address} and not arp and not {outer} and not {names} and not ({unreachable})") == []
    assert world.exec("observer", "sh", "-c", f"grep -c {token} {PCAP} || true").strip() == "0"
