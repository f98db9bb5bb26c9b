"""The clients' resolver: one unbound per group, whose questions leave by that group's exit. Text only."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from chain.contract import RUN_DIR

if TYPE_CHECKING:
    from chain.contract import DesiredState, Dns, Group

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"  # Debian's ca-certificates
ROOT_ANCHOR = "/usr/share/dns/root.key"  # Debian's dns-root-data
_HEADERS = 40  # bytes of IPv4 and TCP
_STAMP = re.compile(r"\[\d+\] unbound\[[\d:]+\] \w+: ")
_QUESTION = re.compile(r"<\S+ \S+ \S+>")
QUIET_SECONDS = 60.0  # between two equal lines in the log


def authorities(dns: Dns) -> str:
    """Name the file of certificates that the upstreams' are checked with; another content means another name."""
    return f"{RUN_DIR}/dns-{hashlib.sha256(dns.ca.encode()).hexdigest()[:12]}.pem" if dns.ca else AUTHORITIES


def config(state: DesiredState, group: Group) -> str:
    """Give unbound.conf. The source of its questions is how the lock knows the group."""
    address = state.address.partition("/")[0]
    upstreams = "".join(f'  forward-addr: "{upstream}"\n' for upstream in state.dns.upstreams)
    return f"""\
server:
  username: ""
  chroot: ""
  directory: "/tmp"
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 0
  do-daemonize: no
  num-threads: 1
  interface: {address}@{group.resolver_port}
  ip-freebind: yes
  outgoing-interface: {group.resolver_address}
  # The link is wider than what lies behind it.
  outgoing-tcp-mss: {state.mtu - _HEADERS}
  do-ip6: no
  access-control: {state.clients_subnet} allow
{_checks(state.dns)}\
  # The asker is told why there is no answer; the log too, by way of `Words`.
  ede: yes
  log-servfail: yes
  # A certificate that is not checked is worth nothing: unbound checks those it knows authorities for.
  tls-cert-bundle: "{authorities(state.dns)}"
  hide-identity: yes
  hide-version: yes
  msg-cache-size: 2m
  rrset-cache-size: 4m
  key-cache-size: 1m
  neg-cache-size: 1m
  outgoing-range: 512
  num-queries-per-thread: 256
  prefetch: yes
  # An answer that names an address of this kind is a rebinding attack. Private ones can be the provider's own.
  private-address: 169.254.0.0/16
  private-address: 127.0.0.0/8
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-tls-upstream: {"yes" if state.dns.tls else "no"}
{upstreams}"""


def _checks(dns: Dns) -> str:
    """Say what answers are checked by. The anchors are read once: docs/decisions/0005-dns.md has the reasons."""
    if not dns.dnssec:
        return '  module-config: "iterator"\n'
    own = "".join(f'  trust-anchor: "{anchor}"\n' for anchor in dns.trust_anchors)
    root = (
        ""
        if any(anchor.startswith(". ") for anchor in dns.trust_anchors)
        else f'  trust-anchor-file: "{ROOT_ANCHOR}"\n'
    )
    return f'  module-config: "validator iterator"\n{root}{own}'


class Words:
    """What the log may hold of unbound's words: no name that a client asked for, and nothing again and again."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def fit(self, line: str, now: float) -> str | None:
        """Give one line for the log, or None."""
        text = _STAMP.sub("", line, count=1)
        if text.startswith("validation failure"):
            text = "an answer failed its DNSSEC check; whoever asked was told which"
        elif _QUESTION.search(text):
            text = "a question has no answer; the upstreams are out of reach, or what they say is of no use"
        self._said = {known: at for known, at in self._said.items() if now - at < QUIET_SECONDS}
        if text in self._said:
            return None
        self._said[text] = now
        return text
