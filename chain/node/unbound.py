"""The clients' resolver: one unbound per group, whose questions leave by that group's exit. Text only."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chain.contract import DesiredState, Group


def config(state: DesiredState, group: Group) -> str:
    """Give unbound.conf. The source of its questions is how the lock knows the group."""
    address = state.address.partition("/")[0]
    upstreams = "".join(f"  forward-addr: {upstream}\n" for upstream in state.dns_upstreams)
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
  do-ip6: no
  access-control: {state.clients_subnet} allow
  module-config: "iterator"
  hide-identity: yes
  hide-version: yes
  msg-cache-size: 2m
  rrset-cache-size: 4m
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
{upstreams}"""
