"""What charon, xl2tpd and pppd are told. Text and VICI messages only.

No secret is in charon's and xl2tpd's files; pppd's options hold the user name and the password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chain.contract import MARK_TUNNEL

if TYPE_CHECKING:
    from collections.abc import Iterable

CONNECTION = "l2tp"  # what the one connection of this charon, its child and its key are called
L2TP_PORT = 1701

# A dead server is given up after 1 + 1.4 + 1.96 + 2.74 + 3.84 = 10.9 s, instead of strongSwan's own 165 s.
_RETRANSMIT = {"retransmit_timeout": "1.0", "retransmit_base": "1.4", "retransmit_tries": "4"}
_DPD_DELAY, _DPD_TIMEOUT = "5s", "15s"
# Of a lifetime, what is left for new keys to be agreed on. charon begins up to as long again before that.
_IKE_ROOM, _ESP_ROOM = 1 / 8, 1 / 6
_L2TP_TRIES = 4  # after 1, 2, 4 and 8 s
# Only what is needed: forecast, ha and others of a full installation join in where they should not.
_PLUGINS = "random nonce openssl kernel-netlink socket-default vici"


def strongswan_conf(socket: str, *, ignored_interface: str, ignored_table: int) -> str:
    """Give strongswan.conf. Routes are the runtime's business, and the tunnel itself is no way to the server."""
    retransmit = "\n".join(f"  {key} = {value}" for key, value in _RETRANSMIT.items())
    return f"""\
charon-systemd {{
  load = {_PLUGINS}
  load_modular = no
  threads = 8
{retransmit}
  install_routes = no
  install_virtual_ip = no
  process_route = no
  routing_table = 0
  ignore_routing_tables = {ignored_table}
  interfaces_ignore = {ignored_interface}
  plugins {{
    vici {{
      socket = unix://{socket}
    }}
    socket-default {{
      fwmark = {MARK_TUNNEL:#x}
    }}
  }}
  journal {{
    default = -1
  }}
  filelog {{
    out {{
      path = stderr
      flush_line = yes
      default = 0
      ike = 1
      cfg = 0
      knl = 1
    }}
  }}
}}
"""


def connection(
    *,
    own: str,
    server: str,
    version: int,
    ike_proposals: Iterable[str],
    esp_proposals: Iterable[str],
    ike_lifetime: int,
    esp_lifetime: int,
    remote_id: str,
    encapsulation: str,
) -> dict[str, Any]:
    """Give the connection as VICI's `load-conn` takes it. Lifetimes are in seconds, and never 0."""
    ike_room, esp_room = round(ike_lifetime * _IKE_ROOM), round(esp_lifetime * _ESP_ROOM)
    # Minimal images have no /etc/protocols, hence 17 and not udp.
    selector = [f"dynamic[17/{L2TP_PORT}]"]
    child = {
        "mode": "transport",
        "local_ts": selector,
        "remote_ts": selector,
        "esp_proposals": list(esp_proposals),
        "set_mark_out": f"{MARK_TUNNEL:#x}",
        "rekey_time": str(esp_lifetime - esp_room),
        "life_time": str(esp_lifetime),  # libreswan deletes an SA of lifetime 0 at once
        "rand_time": str(esp_room),
        "start_action": "none",
        "dpd_action": "none",
        "close_action": "none",
    }
    return {
        CONNECTION: {
            "version": str(version),
            "local_addrs": [own],
            "remote_addrs": [server],
            "proposals": list(ike_proposals),
            "mobike": "no",
            # Makes the server believe in a NAT, so that ESP travels inside UDP where the network blocks it.
            "encap": "yes" if encapsulation == "udp" else "no",
            "keyingtries": "1",
            "dpd_delay": _DPD_DELAY,
            "dpd_timeout": _DPD_TIMEOUT,
            "rekey_time": str(ike_lifetime - ike_room),
            "over_time": str(ike_room),
            "rand_time": str(ike_room),
            "send_certreq": "no",
            "local": {"auth": "psk"},
            # Behind NAT a server says its private address, SoftEther says 0.0.0.0: the key is the proof.
            "remote": {"auth": "psk", "id": remote_id or "%any"},
            "children": {CONNECTION: child},
        }
    }


def shared_key(key: str) -> dict[str, Any]:
    """Give the pre-shared key as VICI's `load-shared` takes it; without owners it is for every peer."""
    return {"id": CONNECTION, "type": "IKE", "data": key.encode()}


def xl2tpd_conf(server: str, ppp_options: str) -> str:
    """Give xl2tpd.conf: dial once, at once. Its language has no quoting, so no credential may stand here."""
    return f"""\
[global]
port = {L2TP_PORT}
max retries = {_L2TP_TRIES}
[lac {CONNECTION}]
lns = {server}
hostname = {CONNECTION}
autodial = yes
redial = no
require pap = no
require chap = no
require authentication = no
length bit = no
pppoptfile = {ppp_options}
"""


def ppp_options(*, user: str, password: str, mtu: int, auth: Iterable[str], number: int) -> str:
    """Give pppd's options. They hold the credentials, as the one file that does: keep it private and on tmpfs."""
    allowed = set(auth)
    refused = [f"refuse-{kind}" for kind in ("pap", "chap", "mschap-v2") if kind not in allowed]
    lines = [
        f"user {quote(user)}",
        f"password {quote(password)}",
        "hide-password",
        "noauth",  # the server has proved itself by the pre-shared key
        "refuse-eap",
        "refuse-mschap",
        *refused,
        "unit 0",
        "noipdefault",
        "nodefaultroute",
        "ipcp-accept-local",
        "ipcp-accept-remote",
        "noipv6",
        "noccp",
        "novj",
        f"mtu {mtu}",
        f"mru {mtu}",
        "lcp-echo-interval 5",
        "lcp-echo-failure 4",
        "lcp-restart 2",
        "connect-delay 0",
        f"set DIAL={number}",  # the environment of the script that tells of addresses
        "logfd 2",  # xl2tpd leaves its own standard error open for pppd
    ]
    return "\n".join(lines) + "\n"


def quote(word: str) -> str:
    """Quote one word as pppd reads its files: inside double quotes only the backslash and the quote are special."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
