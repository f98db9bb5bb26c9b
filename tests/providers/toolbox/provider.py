"""A WireGuard provider: one server interface, NAT towards the internet. Settings: a JSON file, first argument."""

import ipaddress
import json
import signal
import sys
from pathlib import Path

import tunnel

settings = json.loads(Path(sys.argv[1]).read_text())
tunnel.create("wg0")
names = {"public_key": "PublicKey", "preshared_key": "PresharedKey", "allowed": "AllowedIPs"}
peers = "".join(
    "[Peer]\n" + "".join(f"{name} = {peer[key]}\n" for key, name in names.items()) for peer in settings["peers"]
)
tunnel.run(
    "wg",
    "setconf",
    "wg0",
    "/dev/stdin",
    stdin=f"[Interface]\nPrivateKey = {settings['private_key']}\nListenPort = {settings['port']}\n{peers}",
)
tunnel.run("ip", "address", "add", settings["address"], "dev", "wg0")
tunnel.run("ip", "link", "set", "wg0", "up", "mtu", "1420")
for network in settings["routes"]:
    tunnel.run("ip", "route", "replace", network, "dev", "wg0")
# While the tunnel is gone, what is meant for it must not follow the default route out of this container.
for network in (*settings["routes"], str(ipaddress.ip_interface(settings["address"]).network)):
    tunnel.run("ip", "route", "replace", "unreachable", network, "metric", "4294967295")
outside = tunnel.interface_with(settings["outside"])
hide = f"type nat hook postrouting priority srcnat; oifname {outside} masquerade;"
tunnel.run("nft", "-f", "-", stdin=f"table ip provider {{ chain hide {{ {hide} }}; }}\n")
print("ready", flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
