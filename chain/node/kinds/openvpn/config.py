"""What OpenVPN is told, as one file. Keys stand in it: private, on tmpfs, and gone once it is read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.contract import MARK_TUNNEL
from chain.ovpn import quote

if TYPE_CHECKING:
    from chain.ovpn import Profile, Remote

INTERFACE = "vpn0"
FIRST_ANSWER_SECONDS = 10  # of a server; OpenVPN's own patience is two minutes
HANDSHAKE_SECONDS = 30  # for all of TLS
MODERN_CIPHERS = ("AES-256-GCM", "AES-128-GCM", "CHACHA20-POLY1305")
_PROTOCOLS = {"udp": "udp4", "tcp": "tcp4-client"}
_DATAGRAMS = ("fragment", "explicit-exit-notify")  # which go with UDP only
# What a server may set, by the beginning of what it sends; all else is dropped, routes and resolvers first of all.
_TAKEN = (
    *("ifconfig ", "route-gateway ", "topology ", "tun-mtu ", "dhcp-option DNS "),
    *("cipher ", "peer-id ", "key-derivation ", "protocol-flags ", "auth-token", "explicit-exit-notify"),
    *("ping ", "ping-restart ", "reneg-", "comp", "push-continuation "),
)


def document(profile: Profile, beside: dict[str, str], remote: Remote, server: str, socket: str) -> str:
    """Give the file. `server` is the remote's address; `beside` has what stands in files of its own, by directive."""
    said = [line for line in profile.directives if remote.protocol == "udp" or line[0] not in _DATAGRAMS]
    own = [
        ("client",),
        ("dev", INTERFACE),
        ("dev-type", "tun"),
        ("proto", _PROTOCOLS[remote.protocol]),
        ("remote", server, str(remote.port)),
        ("nobind",),
        ("mark", str(MARK_TUNNEL)),
        # The kernel's module for it sends a tunnel's packets without that mark, and the lock would drop them all.
        ("disable-dco",),
        ("management", socket, "unix"),
        ("management-client",),
        ("management-hold",),
        ("management-query-passwords",),
        ("management-up-down",),
        # Each process dials once: when, and with which server, is the runtime's business.
        ("remap-usr1", "SIGTERM"),
        ("resolv-retry", "0"),
        ("connect-retry-max", "1"),
        ("connect-timeout", str(FIRST_ANSWER_SECONDS)),
        ("hand-window", str(HANDSHAKE_SECONDS)),
        ("auth-retry", "none"),
        ("script-security", "0"),
        ("ifconfig-noexec",),
        ("route-noexec",),
        *(line for line in said if line[0] == "pull-filter"),  # of which the first that fits is heeded
        *(("pull-filter", "accept", beginning) for beginning in _TAKEN),
        ("pull-filter", "ignore", ""),
        ("suppress-timestamps",),
        ("mute-replay-warnings",),
        ("verb", "3"),
    ]
    lines = [*own, *(line for line in said if line[0] != "pull-filter"), *_extra(profile, remote)]
    text = "".join(" ".join([name, *map(quote, rest)]) + "\n" for name, *rest in lines)
    return text + "".join(_block(name, block) for name, block in (profile.blocks | beside).items())


def _extra(profile: Profile, remote: Remote) -> list[tuple[str, ...]]:
    """Give what makes a file of earlier days work with today's OpenVPN."""
    said = {name for name, *_ in profile.directives}
    found: list[tuple[str, ...]] = []
    if profile.login:
        found.append(("auth-user-pass",))
    if "tls-timeout" not in said:
        found.append(("tls-timeout", "1"))  # to the first repetition; a server that comes back is met that much sooner
    if remote.protocol == "udp" and "explicit-exit-notify" not in said:
        found.append(("explicit-exit-notify", "1"))  # or the account's place stays taken for minutes
    if said & {"comp-lzo", "compress"} and "allow-compression" not in said:
        found.append(("allow-compression", "asym"))
    if profile.ciphers:
        # `cipher` alone is no longer heeded in the negotiation, and some servers have nothing else.
        if "data-ciphers" not in said:
            found.append(("data-ciphers", ":".join(dict.fromkeys((*MODERN_CIPHERS, *profile.ciphers)))))
        if "data-ciphers-fallback" not in said:
            found.append(("data-ciphers-fallback", profile.ciphers[-1]))
    return found


def _block(name: str, text: str) -> str:
    return f"<{name}>\n{text.rstrip()}\n</{name}>\n"
