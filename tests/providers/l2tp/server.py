"""An L2TP/IPsec provider: strongSwan, xl2tpd and pppd as responders, NAT towards the internet.

Settings: a JSON file, first argument. Needed: psk, user, password. The rest has defaults, below.
It says `ready` when it answers, and ends when one of its daemons does.
"""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEFAULTS: dict[str, Any] = {
    "outside": "",  # own address on the network that clients' packets leave by; empty: no NAT
    "local": "192.168.77.1",
    "pool": "192.168.77.10-192.168.77.200",
    "ike_versions": [1, 2],
    "crypto": "modern",  # or "legacy": nothing but what is old
    "ike": [],  # proposals, instead of those that `crypto` means
    "esp": [],
    "auth": "mschap-v2",  # or "chap", "pap"
    "mtu": 1400,
    "ike_rekey": "4h",
    "esp_rekey": "1h",
    "xl2tpd_global": [],  # further lines of xl2tpd.conf
    "xl2tpd_lns": [],
}
PROPOSALS = {
    "modern": (["aes256-sha256-modp2048", "aes256-sha256-ecp256"], ["aes256gcm16", "aes256-sha256"]),
    "legacy": (["3des-sha1-modp1024"], ["3des-sha1"]),
}
LISTEN_SECONDS = 30


def run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}{done.stdout}")
    return done.stdout


def interface_with(address: str) -> str:
    for link in json.loads(run("ip", "-json", "-4", "address")):
        if any(entry.get("local") == address for entry in link.get("addr_info", ())):
            return str(link["ifname"])
    raise SystemExit(f"no interface has the address {address}")


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    Path(path).chmod(0o600)


def quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def configure_ipsec(settings: dict[str, Any]) -> None:
    ike, esp = PROPOSALS[settings["crypto"]]
    connections = "".join(
        f"""\
  l2tp-v{version} {{
    version = {version}
    local_addrs = %any
    remote_addrs = %any
    proposals = {", ".join(settings["ike"] or ike)}
    unique = replace
    rekey_time = {settings["ike_rekey"]}
    dpd_delay = 10s
    dpd_timeout = 30s
    local {{
      auth = psk
    }}
    remote {{
      auth = psk
      id = %any
    }}
    children {{
      l2tp {{
        mode = transport
        local_ts = dynamic[17/1701]
        remote_ts = dynamic[17]
        esp_proposals = {", ".join(settings["esp"] or esp)}
        rekey_time = {settings["esp_rekey"]}
      }}
    }}
  }}
"""
        for version in settings["ike_versions"]
    )
    key = settings["psk"].encode().hex()
    write(
        "/run/swanctl.conf",
        f"connections {{\n{connections}}}\nsecrets {{\n  ike-all {{\n    id = %any\n    secret = 0x{key}\n  }}\n}}\n",
    )
    write(
        "/run/strongswan.conf",
        """\
charon-systemd {
  load = random nonce openssl kernel-netlink socket-default vici
  install_routes = no
  filelog {
    out {
      path = stdout
      flush_line = yes
      ike_name = yes
      default = 1
    }
  }
}
swanctl {
  load = random openssl pem
}
""",
    )


def configure_l2tp(settings: dict[str, Any]) -> None:
    lines = [
        "[global]",
        "port = 1701",
        *settings["xl2tpd_global"],
        "[lns default]",
        f"ip range = {settings['pool']}",
        f"local ip = {settings['local']}",
        "hostname = provider",
        "require authentication = yes",
        "pppoptfile = /run/ppp.options",
        *settings["xl2tpd_lns"],
    ]
    write("/run/xl2tpd.conf", "\n".join(lines) + "\n")
    refused = "\n".join(f"refuse-{kind}" for kind in ("pap", "chap", "mschap", "mschap-v2") if kind != settings["auth"])
    write(
        "/run/ppp.options",
        f"""\
auth
require-{settings["auth"]}
{refused}
refuse-eap
name provider
noccp
novj
noipv6
mtu {settings["mtu"]}
mru {settings["mtu"]}
lcp-echo-interval 5
lcp-echo-failure 4
connect-delay 0
logfd 2
""",
    )
    for file in ("chap-secrets", "pap-secrets"):
        write(f"/etc/ppp/{file}", f"{quoted(settings['user'])} * {quoted(settings['password'])} *\n")


def hide_clients(outside: str) -> None:
    """Let clients out under this provider's own address, and only them."""
    rule = f'type nat hook postrouting priority srcnat; oifname "{interface_with(outside)}" masquerade;'
    run("nft", "-f", "-", stdin=f"table ip provider {{ chain hide {{ {rule} }}; }}\n")


def only_within_ipsec() -> None:
    """Take and send L2TP by IPsec alone, as providers do: there are moments in which no policy sees to it."""
    # In an error the kernel quotes what came by IPsec: protocol and port of the packet in it.
    quoted = "icmp type destination-unreachable @th,136,8 17 @th,240,16 1701"
    rules = (
        "chain in { type filter hook input priority 0; udp dport 1701 meta ipsec missing drop; }; "
        f"chain out {{ type filter hook output priority 0; udp sport 1701 rt ipsec missing drop; {quoted} drop; }};"
    )
    run("nft", "-f", "-", stdin=f"table inet l2tp {{ }}\ndelete table inet l2tp\ntable inet l2tp {{ {rules} }}\n")


def main() -> None:
    settings = DEFAULTS | json.loads(Path(sys.argv[1]).read_text())
    configure_ipsec(settings)
    configure_l2tp(settings)
    if settings["outside"]:
        hide_clients(settings["outside"])
    only_within_ipsec()
    # While a customer's PPP is down, what is meant for it must not follow the default route out of this container.
    run("ip", "route", "replace", "unreachable", str(ipaddress.ip_network(f"{settings['local']}/24", strict=False)))
    # A provider that was killed and started again keeps its network namespace, and what its kernel held.
    run("ip", "xfrm", "state", "flush")
    run("ip", "xfrm", "policy", "flush")
    Path("/run/xl2tpd.pid").unlink(missing_ok=True)  # it may be another program's number by now
    daemons = [subprocess.Popen(["charon-systemd"])]
    deadline = time.monotonic() + LISTEN_SECONDS
    while subprocess.run(["swanctl", "--load-all", "--file", "/run/swanctl.conf"], check=False).returncode:
        if time.monotonic() > deadline or daemons[0].poll() is not None:
            raise SystemExit("charon does not start")
        time.sleep(0.2)
    places = {"-c": "/run/xl2tpd.conf", "-s": "/dev/null", "-p": "/run/xl2tpd.pid", "-C": "/run/xl2tpd.control"}
    daemons.append(subprocess.Popen(["xl2tpd", "-D", *(part for place in places.items() for part in place)]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        os.wait()
        raise SystemExit("a daemon ended")
    finally:
        for daemon in daemons:
            daemon.terminate()


if __name__ == "__main__":
    main()
