"""An OpenVPN provider: a server process for each way in, NAT towards the internet. It says `ready` when all listen.

Settings: a JSON file, first argument: user, password, outside, routes, and the folder with ca.pem, server.pem (with its
key), expired.pem and static.key.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START_SECONDS = 120  # in emulation, beside others
COMMON = """\
dev-type tun
topology subnet
keepalive 5 20
persist-tun
persist-key
dh none
tls-version-min 1.2
duplicate-cn
explicit-exit-notify {notify}
push "redirect-gateway def1"
push "route 192.0.2.0 255.255.255.0"
push "dhcp-option DNS 10.67.{number}.1"
push "block-outside-dns"
verb 3
suppress-timestamps
"""
LOGIN = """\
verify-client-cert none
username-as-common-name
script-security 3
auth-user-pass-verify /run/check via-env
"""
# By number, which is also that of the network in the tunnel: what else each says.
WAYS: dict[int, tuple[str, str]] = {
    1: ("proto udp4\nport 1194\ntls-crypt {folder}/static.key\n" + LOGIN, "server"),
    2: ("proto tcp4-server\nport 443\ntls-auth {folder}/static.key 0\nremote-cert-tls client\n", "server"),
    # As a server of ten years ago.
    3: (
        "proto udp4\nport 1195\ndata-ciphers AES-256-CBC\nauth SHA1\ncomp-lzo no\nallow-compression yes\n" + LOGIN,
        "server",
    ),
    4: ("proto udp4\nport 1196\n" + LOGIN, "expired"),
    5: ("proto udp4\nport 1197\ndata-ciphers CAMELLIA-256-CBC\n" + LOGIN, "server"),
}
CHECK = """\
#!/usr/bin/env python3
import json, os, sys
wanted = json.load(open({settings!r}))
sys.exit(0 if all(os.environ.get(key[0], "") == wanted[key[1]] for key in
    (("username", "user"), ("password", "password"))) else 1)
"""


def run(*command: str, stdin: str | None = None) -> str:
    return subprocess.run(command, input=stdin, check=True, text=True, stdout=subprocess.PIPE).stdout


def interface_with(address: str) -> str:
    for link in json.loads(run("ip", "-json", "-4", "address", "show")):
        if any(entry.get("local") == address for entry in link["addr_info"]):
            return str(link["ifname"])
    raise LookupError(address)


def start(number: int, settings: dict[str, Any]) -> subprocess.Popen[str]:
    more, certificate = WAYS[number]
    folder, udp = settings["folder"], "proto udp" in more
    text = f"dev tun{number}\nserver 10.67.{number}.0 255.255.255.0\n" + (COMMON + more).format(
        folder=folder, number=number, notify=1 if udp else 0
    )
    text = text if udp else text.replace("explicit-exit-notify 0\n", "")
    text += f"ca {folder}/ca.pem\ncert {folder}/{certificate}.pem\nkey {folder}/{certificate}.pem\n"
    if number == 1:
        # Its customer's networks behind the tunnel are routed too, so that it can push packets at clients.
        Path("/run/ccd").mkdir(exist_ok=True)
        networks = "".join(f"iroute {network} 255.255.255.0\n" for network in settings["routes"])
        Path("/run/ccd/DEFAULT").write_text(networks)
        text += "client-config-dir /run/ccd\n"
    file = Path(f"/run/server{number}.conf")
    file.write_text(text)
    return subprocess.Popen(
        ["openvpn", "--config", str(file)], stdout=Path(f"/run/server{number}.log").open("w"), text=True
    )


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    check = Path("/run/check")
    check.write_text(CHECK.format(settings=sys.argv[1]))
    check.chmod(0o700)
    outside = interface_with(settings["outside"])
    hide = f'type nat hook postrouting priority srcnat; oifname "{outside}" masquerade;'
    run(
        "nft",
        "-f",
        "-",
        stdin=f"add table ip provider; delete table ip provider; table ip provider {{ chain hide {{ {hide} }}; }}\n",
    )
    # While a tunnel is gone, what is meant for it must not follow the default route out of this container.
    for network in (*(f"{each}/24" for each in settings["routes"]), "10.67.0.0/16"):
        run("ip", "route", "replace", "unreachable", network, "metric", "4294967295")
    servers = {number: start(number, settings) for number in WAYS}
    deadline = time.monotonic() + START_SECONDS
    for number, server in servers.items():
        log = Path(f"/run/server{number}.log")
        while "Initialization Sequence Completed" not in log.read_text():
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit(f"server {number} does not start: {log.read_text()}")
            time.sleep(0.1)
    for network in settings["routes"]:
        run("ip", "route", "replace", f"{network}/24", "dev", "tun1")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        os.wait()
        raise SystemExit("a server ended")
    finally:
        for server in servers.values():
            server.terminate()


if __name__ == "__main__":
    main()
