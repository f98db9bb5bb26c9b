"""Looks after all exits, and sends clients to those that are good: what is found by watches decides, and orders."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chain.agent import choice, maintenance, memory, status, steering
from chain.agent.damping import Allowance
from chain.agent.endings import Endings
from chain.agent.events import tell, tell_needed
from chain.agent.failover import Drained, Failover, Pinned, Switch, Undrained
from chain.agent.netfilter import Netfilter
from chain.agent.placement import Placement
from chain.agent.standby import Standby
from chain.agent.verdict import State
from chain.agent.watch import Watch
from chain.contract import BY_HAND, MEMORY_DIR
from chain.node import lock
from chain.node.supervise import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chain.agent.datapath import Datapath
    from chain.agent.failover import Event, Group, Judged, Move
    from chain.contract import DesiredState, ExitLink, ExitReport

WITNESSES = Path(MEMORY_DIR, "witnesses.json")
WITNESSES_SECONDS = 5.0  # between two looks at whether they are still the same
AHEAD_SECONDS = 60.0  # before maintenance, in which a cold exit has time to come up
LONGEST_WAIT = 10.0  # seconds; maintenance begins that much later at most
COUNT_INTERVAL = 0.02  # seconds: one look takes a tenth of a millisecond for ten exits, a whole one for a hundred


def _who(exit_: ExitLink) -> str:
    return f"{exit_.name} {exit_.identity}"


def _witnesses(found: Mapping[str, object]) -> dict[str, list[str]]:
    """Read what was saved, as far as it makes sense."""
    lists = {who: told for who, told in found.items() if isinstance(told, list)}
    return {who: [each for each in told if isinstance(each, str)] for who, told in lists.items()}


class Judge:
    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._state: DesiredState | None = None
        self._links: dict[str, str] = {}
        self._netfilter = Netfilter()
        self._counters: dict[str, int] = {}
        self._counted_at = -math.inf
        self._heard_of: dict[str, ExitReport] = {}
        self._gone_since: dict[str, float] = {}
        self._blocked_since: dict[str, float] = {}  # groups that were answered before
        self._allowances: dict[str, Allowance] = {}
        self._shown: dict[str, str | None] = {}  # what was told of each exit
        self._standby = Standby()
        self._watches: dict[str, Watch] = {}
        self._failover = Failover(())
        self._known: tuple[list[Group], set[str]] | None = None  # what that was made for
        self._now: Switch = Switch(frozenset(), {}, (), ())
        self._suspected: frozenset[int] = frozenset()
        self._up: frozenset[str] = frozenset()  # exits that the kernel was told to be up
        self._witnesses = self._saved = _witnesses(memory.load(WITNESSES))
        self._save_error: int | None = None
        self._witnessed_at = -math.inf
        self._placement = Placement()
        self._drained: set[Drained] = set()  # for maintenance, at present
        self._by_hand: set[Drained] = set()
        self._drains_told: Mapping[str, str] = {}  # by exit, why
        self._woken = asyncio.Event()
        self._endings = Endings(lambda name: name in self._now.opened)
        self._steering = steering.remembered()

    @property
    def buckets(self) -> Mapping[str, int]:
        """Give the number of buckets of each of the failover's groups."""
        return self._failover.buckets

    def take_over(
        self,
        state: DesiredState,
        links: dict[str, str],
        reports: dict[str, ExitReport],
        groups_before: Mapping[int, str],
    ) -> None:
        """Mean this state from now on, but for its clients, who may be in the groups of the former one.

        `groups_before`: by their marks, those that clients were put into by another agent.
        """
        first = self._state is None
        self._state, self._links = state, links
        self._heard_of = reports
        before = self._datapath.found(state) if first else choice.Before()
        self._watch(state, before)
        orders: list[Event] = []
        groups = choice.groups(state)
        if self._known != (groups, set(self._watches)):
            self._known = groups, set(self._watches)
            if first:
                self._failover = Failover(groups, before.chosen)
            else:
                self._failover.reconfigure(groups, self._watches)
            names = {group.name for group in groups}
            self._blocked_since = {name: at for name, at in self._blocked_since.items() if name in names}
            orders += self._drained  # of an exit that was away it has been forgotten
        orders += self._steered(state, first=first)
        if first:
            self._drains_told = {each.exit: each.reason for each in self._by_hand}
            self._placement = Placement.found(state, groups_before, before.chosen)
        self._placement = self._placement.towards(Placement.of(state, self.buckets))
        self._standby.begin(time.monotonic())
        for name, watch in self._watches.items():
            if report := reports.get(name):  # who has said nothing yet is not gone
                self._standby.heard(name, report.state)
            self._tell(watch, reports.get(name))
        self._review(*orders, anew=True, first=first)

    def placed(self) -> None:
        """Take note that the clients of the state that is meant are in its groups."""
        if self._state is not None:
            self._placement = Placement.of(self._state, self.buckets)
            self._switch(replace(self._now, moves=(), died=()))

    # Exits

    def _watch(self, state: DesiredState, before: choice.Before) -> None:
        """Watch exactly these exits; of those that stay, everything is remembered."""
        exits = {exit_.name: exit_ for exit_ in state.exits if exit_.name in self._links}
        source = state.address.partition("/")[0]
        judged = dict(before.states)
        for name, watch in list(self._watches.items()):
            if watch.exit != exits.get(name) or watch.wanted != choice.sensitivity(state, name):
                if watch.exit == exits.get(name) and watch.says_up:
                    judged[name] = watch.state
                self._witnesses = self._witnesses | {_who(watch.exit): sorted(watch.witnesses)}
                self._watches.pop(name).close()
                self._endings.forget(name)
        for name, exit_ in exits.items():
            if name not in self._watches:
                wanted, witnesses = choice.sensitivity(state, name), self._witnesses.get(_who(exit_), ())
                self._watches[name] = Watch(exit_, source, wanted, judged.get(name, State.GOOD), witnesses)

    def heard(self, name: str, report: ExitReport | None) -> None:
        """Take what an exit says, or that it is gone."""
        if report is None:
            self._heard_of.pop(name, None)
            self._gone_since[name] = time.time()
        else:
            self._heard_of[name] = report
            self._gone_since.pop(name, None)
        self._standby.heard(name, None if report is None else report.state)
        if watch := self._watches.get(name):
            self._tell(watch, report)
            self._review()

    def _tell(self, watch: Watch, report: ExitReport | None) -> None:
        """Tell a watch what its exit says. One that comes and goes too often has to wait."""
        now, trusted = time.monotonic(), True
        if report is not None and report.state == "up" and not watch.says_up:
            allowance = self._allowances.setdefault(watch.exit.name, Allowance(now))
            trusted = allowance.take(now)
            if not trusted:
                asyncio.get_running_loop().call_later(allowance.wait(now), self._tell_again, watch.exit.name)
        try:
            watch.heard(now, report, trusted=trusted)
        except OSError as error:  # it stays dead; the other exits are not to suffer
            log("agent", f"exit {watch.exit.name} can't be asked: {error.strerror}")
        self._woken.set()

    def _tell_again(self, name: str) -> None:
        if name in self._watches and name in self._heard_of:
            self.heard(name, self._heard_of[name])

    async def run(self) -> None:
        """Look after all exits, forever."""
        while True:
            now = time.monotonic()
            due = [watch for watch in self._watches.values() if watch.wake <= now]
            if due:
                counters = self._count(now)
                for watch in due:
                    mark = watch.exit.mark
                    watch.tick(now, counters.get(lock.sent_by(mark), 0), counters.get(lock.came_by(mark), 0))
            self._review()
            if now - self._witnessed_at > WITNESSES_SECONDS:
                self._remember_witnesses(now)
            wake = min((watch.wake for watch in self._watches.values()), default=math.inf)
            wait = max(min(wake, self._failover.wake) - time.monotonic(), 0)
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(wait, LONGEST_WAIT))

    def _count(self, now: float) -> dict[str, int]:
        """Give the counters of all exits as they were a moment ago, whichever of these is looked at now."""
        if now - self._counted_at > COUNT_INTERVAL:
            self._counters, self._counted_at = self._netfilter.counters(), now
        return self._counters

    def _review(self, *orders: Event, anew: bool = False, first: bool = False) -> None:
        """Act on what the watches found. `anew`: whatever the kernel has been told. `first`: since another agent."""
        events = [news for watch in self._watches.values() if (news := watch.news(anew=anew))]
        for news in events:
            self._tell_of(news)
        switch = self._failover.handle(time.monotonic(), *events, *orders, *self._maintenance())
        self._tell_drains()
        if switch is None and (anew or self._suspects() != self._suspected or self._heard_up() != self._up):
            switch = replace(self._now, moves=(), died=())
        if switch is not None and first:  # those too that died while there was no agent
            switch = replace(switch, died=tuple(name for name in self._watches if name not in switch.opened))
        if switch is not None:
            self._switch(switch)
        for news in events:
            self._look_ahead(news)
        if events or orders or switch is not None:
            self._standby.look_again()
        self._look_at_needs()

    def _look_ahead(self, news: Judged) -> None:
        """Be ready for the death of an exit that fell silent."""
        watch = self._watches[news.exit]
        if news.state is State.SUSPECT and watch.failing_since is not None:
            self._endings.expect(news.exit, watch.exit.mark)
        elif news.state is not State.DEAD:
            self._endings.forget(news.exit)

    def _tell_of(self, news: Judged) -> None:
        before, now = self._shown.get(news.exit), self._watches[news.exit].shown
        if now != before:
            tell("exit", exit=news.exit, source=before, target=now, cause=news.cause)
            self._shown[news.exit] = now

    def _look_at_needs(self) -> None:
        """Have cold exits know whether they are needed."""
        cold = {name for name, watch in self._watches.items() if watch.exit.cold}
        dead = {name for name in self._heard_up() if self._watches[name].state is State.DEAD} if cold else set()
        if cold:
            self._standby.announced({each.exit for each in self._windows(time.time() + AHEAD_SECONDS)})
        needed = self._standby.news(time.monotonic(), self._failover, self._watches, cold, dead)
        if needed is not None:
            tell_needed(needed)

    # Orders

    def _maintenance(self) -> list[Drained | Undrained]:
        """Give the drains that begin now, and those that end."""
        wanted = self._windows(time.time())
        begun, over = wanted - self._drained, self._drained - wanted
        self._drained = wanted
        return [*begun, *(Undrained(each.exit, each.reason) for each in over)]

    def _windows(self, at: float) -> set[Drained]:
        """Give the drains for maintenance at that time of the calendar."""
        then = time.gmtime(at)
        windows = () if self._state is None else self._state.maintenance
        found = maintenance.in_force(windows, then.tm_wday, then.tm_hour * 60 + then.tm_min)
        return {each for drain in found for each in self._around(drain) if isinstance(each, Drained)}

    def _around(self, order: Event) -> list[Event]:
        """Give an order, and with a drain those for what runs through that exit."""
        if self._state is None or not isinstance(order, (Drained, Undrained)):
            return [order]
        reason = f"runs through {order.exit} ({order.reason})"
        inner = maintenance.through(self._state.exits, order.exit)
        return [order, *(type(order)(name, reason) for name in inner if name in self._watches)]

    def _tell_drains(self) -> None:
        """Tell which exits are drained now and were not, for whatever reason, and the other way round."""
        before, now = self._drains_told, {name: ", ".join(why) for name, why in self._failover.drained().items()}
        self._drains_told = now
        for name in now.keys() - before.keys():
            tell("drain", exit=name, cause=now[name])
        for name in before.keys() - now.keys():
            tell("undrain", exit=name, cause=before[name])

    def steer(self, question: Mapping[str, Any]) -> None:
        """Follow an order. Raises ValueError where there is no such exit or group."""
        order = steering.ordered(question, self._failover, self._watches)
        if self._steering.note(order):
            steering.remember(self._steering)
            if question["verb"] == "switch":
                tell("switch", group=question["group"], exit=question["exit"], cause=BY_HAND)
        # Even if it was so already: a group without a pin goes back to what is preferred, without waiting.
        self._by_hand = self._drains_by_hand()
        switch = self._failover.handle(time.monotonic(), *self._around(order))
        self._tell_drains()
        if switch is not None:
            self._switch(switch)
        self._standby.look_again()
        self._look_at_needs()

    def _steered(self, state: DesiredState, *, first: bool) -> list[Event]:
        """Give what was chosen by hand. What there is no exit or no group for any more is forgotten."""
        holding = self._steering.holding(state)
        if holding != self._steering:
            self._steering = holding
            steering.remember(holding)
        before, self._by_hand = self._by_hand, self._drains_by_hand()
        over = (Undrained(each.exit, each.reason) for each in before - self._by_hand)
        # A pin that is told again would be a new order, by which its group goes back at once.
        pins = (each for each in holding.events() if first and isinstance(each, Pinned))
        return [*over, *self._by_hand, *pins]

    def _drains_by_hand(self) -> set[Drained]:
        orders = self._steering.events()
        return {each for order in orders for each in self._around(order) if isinstance(each, Drained)}

    def _remember_witnesses(self, now: float) -> None:
        """Keep for the next agent which strangers told that an exit leads to the internet."""
        self._witnessed_at = now
        if self._state is None:
            return  # what was saved holds until something is known
        seen = {_who(watch.exit): sorted(watch.witnesses) for watch in self._watches.values()}
        there = {_who(exit_) for exit_ in self._state.exits}  # a link may be missing for a moment
        self._witnesses = {who: told for who, told in (self._witnesses | seen).items() if told and who in there}
        if self._witnesses != self._saved:
            try:
                memory.save(WITNESSES, dict(self._witnesses))
            except OSError as error:
                if self._save_error != error.errno:  # it is tried again and again
                    log("agent", f"who answers through exits can't be remembered: {error.strerror}")
                self._save_error = error.errno
            else:
                self._saved, self._save_error = self._witnesses, None

    # The kernel

    def _suspects(self) -> frozenset[int]:
        return frozenset(watch.exit.mark for watch in self._watches.values() if watch.state is State.SUSPECT)

    def _switch(self, switch: Switch) -> None:
        """Make the kernel agree."""
        state = self._state
        if state is None:
            return
        before, self._now, self._suspected, self._up = self._now, switch, self._suspects(), self._heard_up()
        chosen = self._placement.choice(state, switch.chosen, self.buckets)
        self._datapath.switch(state, self._links, switch.opened, chosen, up=self._up, suspects=self._suspected)
        marks = {exit_.name: exit_.mark for exit_ in state.exits}
        for name in switch.died:
            self._endings.begin(name, marks[name])
        for name in sorted(switch.opened ^ before.opened):
            log("agent", f"exit {name}: {'open' if name in switch.opened else 'closed'}")
        for move in switch.moves:
            group = choice.name(move.group)
            log("agent", f"group {group}: {move.target or 'blocked, no exit is open'} ({move.cause})")
            share = round(len(move.buckets) / self.buckets[move.group], 3)
            fields = {"share": share, "blackout": self._blackout(move), "cause": move.cause}
            tell("move", group=group, source=move.source, target=move.target, **fields)
        for move in switch.moves:
            if move.source is None:
                self._blocked_since.pop(move.group, None)

    def _blackout(self, move: Move) -> float | None:
        """Give the seconds for which these clients had no answer, as far as it shows here; None: none, or not over."""
        now = time.monotonic()
        if move.source is None:
            since = self._blocked_since.get(move.group)
        else:
            watch = self._watches.get(move.source)
            since = None if watch is None else watch.failing_since
        if move.target is None:
            begun = now if since is None else since
            self._blocked_since[move.group] = min(begun, self._blocked_since.get(move.group, begun))
            return None
        return None if since is None else round(now - since, 3)

    def _heard_up(self) -> frozenset[str]:
        heard = self._heard_of
        return frozenset(name for name in self._watches if name in heard and heard[name].state == "up")

    # Status

    def status(self) -> dict[str, Any]:
        """Show exits and groups. Raises OSError."""
        if (state := self._state) is None:
            raise RuntimeError("no state has been applied yet")
        return {
            "refused_packets": self._netfilter.counters().get("refused", 0),
            "exits": [self._exit_status(exit_) for exit_ in state.exits],
            "groups": status.groups(state, self._failover, self._now.chosen),
        }

    def going(self) -> dict[int, str]:
        """Give the exit of new connections by the mark of a client's bucket; without one they are refused."""
        if (state := self._state) is None:
            return {}
        exits = {exit_.mark: exit_.name for exit_ in state.exits}
        chosen = self._placement.choice(state, self._now.chosen, self.buckets)
        return {bucket: exits[mark] for bucket, mark in chosen.buckets.items()}

    def _exit_status(self, exit_: ExitLink) -> dict[str, Any]:
        name = exit_.name
        drained = self._failover.drained().get(name, ())
        if (report := self._heard_of.get(name)) is None:
            return status.silent(exit_, self._gone_since.get(name), drained=drained)
        return status.reporting(
            exit_, report, self._watches.get(name), is_open=name in self._now.opened, drained=drained
        )
