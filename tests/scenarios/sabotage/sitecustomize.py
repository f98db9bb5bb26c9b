"""Takes barriers away inside a container, for the leak test's positive control.

Mounted by that test alone, and put on Python's path there; the runtime itself has no switch that opens anything.
`SABOTAGE` lists the barriers to remove: lock, peers, mac, forwarding.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

REMOVED = set(os.environ.get("SABOTAGE", "").split(","))


def remove_lock() -> None:
    """Everything is accepted; routing and NAT stay."""
    from chain.node import lock

    def opened(text: str) -> str:
        text = text.replace("policy drop", "policy accept")
        return re.sub(r"(?m)^.*(reject|goto refuse|@open_pairs drop).*\n", "", text)

    closed, exit_lock, entry_lock = lock.closed, lock.exit_lock, lock.entry_lock
    lock.closed = lambda: opened(closed())

    def exit_opened(*args: Any, **kwargs: Any) -> str:
        text = opened(exit_lock(*args, **kwargs))
        if "peers" in REMOVED:
            return text
        # The set of open peers is kept by the lock's own rules; alone, it needs one that acts on it.
        drops = "".join(
            f"    oifname {sender.interface} oifname != @open ip daddr {sender.behind} drop\n"
            for sender in kwargs["senders"]
        )
        chains = "".join(
            f"  chain {hook}_peers {{\n    type filter hook {hook} priority 1;\n{drops}  }}\n"
            for hook in ("forward", "output")
        )
        return text.replace("  chain output {", f"{chains}  chain output {{")

    lock.exit_lock = exit_opened
    lock.entry_lock = lambda *args, **kwargs: opened(entry_lock(*args, **kwargs))


def remove_peers() -> None:
    """Both ends send to the other whether it has reported itself locked or not."""
    from chain.node import lock

    exit_lock, entry_switch = lock.exit_lock, lock.entry_switch

    def always_open(*args: Any, **kwargs: Any) -> str:
        senders = [replace(sender, open=True) for sender in kwargs["senders"]]
        return exit_lock(*args, **(kwargs | {"senders": senders, "ready": True}))

    lock.exit_lock = always_open
    known: dict[str, Any] = {}

    def all_open(exits: lock.Exits, choice: lock.Choice, members: Iterable[tuple[int, int]]) -> str:
        if not known:
            return entry_switch(exits, choice, members)
        from chain.agent import choice as choices
        from chain.contract import BUCKETS

        state, links = known["state"], known["links"]
        marks = {exit_.name: exit_.mark for exit_ in state.exits}
        return entry_switch(
            lock.Exits.well({marks[name]: interface for name, interface in links.items()}),
            choices.marks(
                state,
                {
                    (choices.key(group.name), bucket): group.exits[0]
                    for group in state.groups
                    for bucket in range(BUCKETS)
                },
            ),
            members,
        )

    lock.entry_switch = all_open
    try:
        from chain.agent.judge import Judge
    except ImportError:  # an exit's image
        from chain.node.exit import Exit

        def unmoved(self: Exit, name: str, there: bool) -> None:  # noqa: FBT001 - the method's own shape
            del self, name, there

        Exit._sender_changed = unmoved  # type: ignore[method-assign]
        return
    take_over = Judge.take_over

    def remember(self: Judge, state: Any, links: Any, *more: Any) -> None:
        known.update(state=state, links=links)
        take_over(self, state, links, *more)

    Judge.take_over = remember  # type: ignore[assignment, method-assign]


def remove_mac() -> None:
    """Containers keep the address that Docker gave them, and find each other by asking."""
    from chain.node import run as module

    run, ip_batch = module.run, module.ip_batch

    def keep_address(*command: str, stdin: str | None = None, secret: bool = False) -> str:
        if command[:3] == ("ip", "link", "set") and "address" in command:
            return ""
        return run(*command, stdin=stdin, secret=secret)

    module.run = keep_address
    module.ip_batch = lambda lines: ip_batch(
        [line for line in lines if not re.search("^neighbour|^link .* address", line)]
    )


def remove_forwarding() -> None:
    """Forwarding is on from the first moment (see the sysctl in the overlay) and stays on."""
    from chain.node import netlink

    set_forwarding = netlink.set_forwarding

    def always_on(interface: str, *, on: bool) -> None:
        del on
        set_forwarding(interface, on=True)

    netlink.set_forwarding = always_on


# The order matters: names are taken from these modules when later ones are loaded.
if "mac" in REMOVED:
    remove_mac()
if "lock" in REMOVED:
    remove_lock()
if "forwarding" in REMOVED:
    remove_forwarding()
if "peers" in REMOVED:
    remove_peers()
