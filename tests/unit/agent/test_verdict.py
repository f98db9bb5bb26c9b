"""The verdict: step by step, and on the simulated paths of bench/, of which `make bench-verdicts` runs whole days."""

from __future__ import annotations

import itertools
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from losses import Hole, Independent
from simulated import Change, Scene, World
from verdicts import ECHO, FAULTS, MODELS, OVERHEAD, Fault, alarms, times

from chain.agent.verdict import (
    NEAR,
    SLOWEST,
    STRANGERS,
    TICK_IDLE,
    Sensitivity,
    State,
    Target,
    Trail,
    Verdict,
)

BEGIN = 6.0  # seconds of a simulated path before something happens to it
HOUR = 1 / 24

rtts = st.floats(0.0003, 0.2)
places = st.floats(0.0, 1.0)
moments = st.floats(BEGIN, BEGIN + 0.5)


class Exit:
    """An exit that answers each question after the same time, or not at all."""

    def __init__(
        self,
        want: Sensitivity | None = None,
        *,
        near: bool = True,
        before: State = State.GOOD,
        witnessed: bool = False,
    ) -> None:
        self.verdict = Verdict(0.0, want, near=near, before=before, witnessed=witnessed)
        self.now, self.rtt = 0.0, 0.02
        self.answers: set[Target] = set(Target)
        self.sent = self.received = 0
        self.asked: list[tuple[float, Target]] = []
        self._coming: list[tuple[float, Target, int]] = []

    def up(self) -> Exit:
        self.verdict.said(self.now, up=True, cause="a probe was answered")
        return self

    def tick(self) -> None:
        """Let the time come for which the verdict has asked."""
        self.now = max(self.now + 1e-3, self.verdict.wake)
        for at, target, number in [answer for answer in self._coming if answer[0] <= self.now]:
            self.verdict.answered(target, number, at)
        self._coming = [answer for answer in self._coming if answer[0] > self.now]
        for target, number in self.verdict.tick(self.now, self.sent, self.received):
            self.asked.append((self.now, target))
            if target in self.answers:
                self._coming.append((self.now + self.rtt, target, number))

    def delay(self, seconds: float) -> None:
        """Let all answers that are on the way come so much later."""
        self._coming = [(at + seconds, target, number) for at, target, number in self._coming]

    def run(self, seconds: float, *, sends: float = 0.0, gets: float = 0.0) -> Exit:
        """Let time pass, while clients send and get so many packets a second."""
        began, sent, received = self.now, self.sent, self.received
        while self.now < began + seconds:
            self.sent = sent + int(sends * (self.now - began))
            self.received = received + int(gets * (self.now - began))
            self.tick()
        return self

    def until(self, state: State, within: float, *, sends: float = 0.0, gets: float = 0.0) -> float:
        """Give the seconds until it is in that state."""
        began = self.now
        while self.verdict.state is not state:
            assert self.now < began + within, f"{self.verdict.state}: {self.verdict.cause}"
            self.run(1e-6, sends=sends, gets=gets)
            self.sent += int(sends * 0.02)
            self.received += int(gets * 0.02)
        return self.now - began


def seeded(seed: object) -> Random:
    return Random(str(seed))  # noqa: S311 - nobody is to be surprised


def changes(scene: Scene, until: float, seed: object = 0) -> list[Change]:
    return list(World(scene, seeded(seed)).run(until))


# Its own words


def test_an_exit_is_dead_until_it_says_that_it_is_up_and_then_good_at_once() -> None:
    exit_ = Exit()
    exit_.run(1.0)
    assert exit_.verdict.state is State.DEAD
    assert exit_.verdict.cause == "it has not said that it is up"
    assert not exit_.asked
    assert exit_.up().verdict.state is State.GOOD


def test_its_end_is_its_death_and_coming_back_has_to_prove_itself() -> None:
    exit_ = Exit().up().run(5.0)
    exit_.verdict.said(exit_.now, up=False, cause="its container is gone")
    assert (exit_.verdict.state, exit_.verdict.cause) == (State.DEAD, "its container is gone")
    asked = len(exit_.asked)
    exit_.run(5.0)
    assert len(exit_.asked) == asked
    exit_.up()
    assert exit_.verdict.state is State.SUSPECT
    assert "prove itself for 10 s" in exit_.verdict.cause
    assert 10.0 <= exit_.until(State.GOOD, 11.0) < 11.0


def test_who_dies_again_and_again_waits_longer_each_time_until_it_was_good_for_a_while() -> None:
    exit_ = Exit().up().run(5.0)
    waits = []
    for rest in (1.0, 1.0, 100.0, 1.0):
        exit_.verdict.said(exit_.now, up=False, cause="no answer")
        exit_.up()
        waits.append(round(exit_.until(State.GOOD, 100.0)))
        exit_.run(rest)
    assert waits == [10, 20, 40, 10]


def test_that_wait_has_an_end() -> None:
    exit_ = Exit(Sensitivity(hold_down=1.0)).up().run(5.0)
    waits = []
    for _ in range(7):
        exit_.verdict.said(exit_.now, up=False, cause="no answer")
        exit_.up()
        waits.append(round(exit_.until(State.GOOD, 100.0)))
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_it_says_since_when_answers_are_missing() -> None:
    exit_ = Exit().up().run(BEGIN, sends=50, gets=50)
    assert exit_.verdict.failing_since is None
    exit_.answers, silent_at = set(), exit_.now
    exit_.until(State.SUSPECT, 1.0, sends=50)
    assert exit_.verdict.failing_since == pytest.approx(silent_at, abs=0.06)
    exit_.until(State.DEAD, 2.0, sends=50)
    assert exit_.verdict.failing_since == pytest.approx(silent_at, abs=0.06)
    exit_.answers = set(Target)
    exit_.until(State.SUSPECT, 5.0)
    assert exit_.verdict.failing_since is None, "it answers again"
    exit_.verdict.said(exit_.now, up=False, cause="its container is gone")
    assert exit_.verdict.failing_since == pytest.approx(exit_.now, abs=0.06)


def test_a_near_target_that_is_silent_alone_is_no_missing_answer_of_the_exit() -> None:
    exit_ = Exit().up().run(BEGIN, sends=50, gets=50)
    exit_.answers = {Target.PUBLIC}
    exit_.run(300.0, sends=50, gets=50)
    assert exit_.verdict.state is State.GOOD
    exit_.verdict.said(exit_.now, up=False, cause="its container is gone")
    assert exit_.verdict.failing_since == pytest.approx(exit_.now, abs=0.06)


def test_when_the_internet_is_gone_answers_are_missing_since_then() -> None:
    exit_ = Exit().up().run(BEGIN + 20, sends=50, gets=50)
    exit_.answers, gone_at = {Target.NEAR}, exit_.now
    exit_.until(State.SUSPECT, 30.0, sends=50)
    assert exit_.verdict.failing_since == pytest.approx(gone_at, abs=0.06)


def test_loss_alone_is_no_silence() -> None:
    exit_, random = Exit().up().run(BEGIN), seeded("loss")
    while exit_.verdict.state is State.GOOD:
        exit_.answers = set() if random.random() < 0.6 else set(Target)
        exit_.tick()
        assert exit_.now < BEGIN + 60
    assert "of the probes" in exit_.verdict.cause
    assert exit_.verdict.failing_since is None


# Silence


def test_one_that_another_judged_dead_has_to_answer_before_it_is_used() -> None:
    exit_ = Exit(before=State.DEAD)
    exit_.answers = set()
    states = [exit_.up().run(5).verdict.state]
    exit_.answers = set(Target)
    states += [exit_.run(seconds).verdict.state for seconds in (2, Sensitivity().hold_down)]
    assert states == [State.DEAD, State.SUSPECT, State.GOOD]


def test_one_that_another_suspected_has_to_prove_itself() -> None:
    exit_ = Exit(before=State.SUSPECT).up()
    states = [exit_.verdict.state, exit_.run(Sensitivity().hold_down + 1).verdict.state]
    assert states == [State.SUSPECT, State.GOOD]


def test_one_that_another_judged_dead_has_to_answer_though_it_names_other_targets_first() -> None:
    exit_ = Exit()
    exit_.verdict.succeed(Verdict(0.0, before=State.DEAD))
    assert exit_.up().verdict.state is State.DEAD
    assert exit_.run(5.0).verdict.state is State.SUSPECT


@pytest.mark.parametrize(("ends", "state"), [(True, State.SUSPECT), (False, State.GOOD)])
def test_with_other_targets_an_exit_is_still_the_same(ends: bool, state: State) -> None:  # noqa: FBT001 - a case
    before = Exit().up().verdict
    if ends:
        before.said(1.0, up=False, cause="it dials anew")
    exit_ = Exit()
    exit_.verdict.succeed(before)
    assert exit_.up().verdict.state is state


def test_a_missing_answer_starts_a_burst() -> None:
    exit_ = Exit().up().run(5.0)
    began = exit_.now
    exit_.answers.clear()
    exit_.until(State.SUSPECT, 1.0)
    near = [at for at, target in exit_.asked if target is Target.NEAR]
    gaps = [(at, later - at) for at, later in itertools.pairwise(near)]
    assert min(gap for at, gap in gaps if at < began) == pytest.approx(NEAR.idle, abs=TICK_IDLE)
    assert gaps[-1][1] == pytest.approx(NEAR.burst, abs=0.002)
    assert exit_.verdict.cause.startswith("no answer to ")


def test_the_cause_tells_what_happened_to_clients_packets() -> None:
    exit_ = Exit().up().run(5.0, sends=1000, gets=1000)
    exit_.answers.clear()
    exit_.until(State.SUSPECT, 1.0, sends=1000)
    assert "packets were sent and none came back" in exit_.verdict.cause


def test_the_longer_a_silence_the_fewer_questions() -> None:
    exit_ = Exit().up().run(5.0)
    exit_.answers.clear()
    exit_.until(State.DEAD, 2.0)
    exit_.run(60.0)
    asked = len(exit_.asked)
    exit_.run(60.0)
    assert len(exit_.asked) - asked < 60 / SLOWEST + 60 / STRANGERS.idle * 10


def test_a_dead_one_that_answers_again_is_suspect_first() -> None:
    exit_ = Exit().up().run(5.0)
    exit_.answers.clear()
    exit_.until(State.DEAD, 2.0)
    exit_.run(5.0)
    exit_.answers.update(Target)
    assert exit_.until(State.SUSPECT, 2.0) < 1.0
    assert exit_.verdict.cause == "it answers again; it has to prove itself for 10 s"
    assert exit_.until(State.GOOD, 12.0) > 10.0


def test_a_suspect_one_is_good_soon_after_it_answers_but_later_each_time() -> None:
    exit_ = Exit().up().run(5.0)
    waits = []
    for _ in range(4):
        exit_.answers.clear()
        exit_.until(State.SUSPECT, 1.0)
        exit_.answers.update(Target)
        waits.append(exit_.until(State.GOOD, 5.0))
        exit_.run(1.0)
    assert waits[0] < 0.4
    assert waits == sorted(waits)
    assert waits[-1] > 2.0


def test_one_that_never_answered_is_suspect_not_dead() -> None:
    exit_ = Exit()
    exit_.answers.clear()
    exit_.up().run(30.0)
    assert exit_.verdict.state is State.SUSPECT


# Near and far


def test_a_near_target_that_falls_silent_alone_is_not_the_exits_death() -> None:
    exit_ = Exit().up().run(15.0)
    exit_.answers.discard(Target.NEAR)
    exit_.run(120.0)
    assert exit_.verdict.state is State.GOOD
    assert exit_.verdict.warning == "the tunnel's far end does not answer, but strangers do"
    strangers = [at for at, target in exit_.asked if target is Target.PUBLIC and at > exit_.now - 30.0]
    assert len(strangers) < 8
    exit_.answers.clear()
    exit_.until(State.DEAD, 11.0)


def test_strangers_that_never_answer_prove_nothing_and_are_left_alone() -> None:
    exit_ = Exit()
    exit_.answers.discard(Target.PUBLIC)
    exit_.up().run(300.0, sends=100, gets=100)
    assert exit_.verdict.state is State.GOOD
    assert exit_.verdict.warning == "strangers do not answer, but the tunnel's far end does"
    assert sum(target is Target.PUBLIC for _, target in exit_.asked) <= 300 / STRANGERS.idle + 1


def test_strangers_that_fall_silent_while_clients_are_answered_prove_nothing() -> None:
    exit_ = Exit().up().run(15.0, sends=100, gets=100)
    exit_.answers.discard(Target.PUBLIC)
    exit_.run(30.0, sends=100, gets=100)
    assert exit_.verdict.state is State.GOOD
    exit_.run(30.0)
    assert exit_.verdict.state is State.GOOD


def test_a_provider_without_internet_is_suspect_when_quiet_and_dead_when_clients_get_no_answers() -> None:
    quiet = Exit().up().run(15.0)
    quiet.answers.discard(Target.PUBLIC)
    quiet.run(30.0)
    assert quiet.verdict.state is State.SUSPECT
    assert quiet.verdict.cause.startswith("the tunnel's far end answers, but the internet does not")
    busy = Exit().up().run(15.0, sends=1000, gets=1000)
    busy.answers.discard(Target.PUBLIC)
    busy.until(State.DEAD, 1.0, sends=1000)
    assert busy.verdict.cause.startswith("the tunnel's far end answers, but the internet does not")


def test_a_new_tunnel_to_a_provider_without_internet_does_not_make_it_good() -> None:
    exit_ = Exit(Sensitivity(hold_down=1.0)).up().run(15.0)
    exit_.answers.discard(Target.PUBLIC)
    exit_.run(15.0)
    assert exit_.verdict.state is State.SUSPECT
    exit_.verdict.said(exit_.now, up=False, cause="it dials anew")
    exit_.up()
    for _ in range(40):
        assert exit_.run(1.0).verdict.state is State.SUSPECT
    exit_.answers.add(Target.PUBLIC)
    exit_.until(State.GOOD, 15.0)


@pytest.mark.parametrize("witnessed", [True, False])
def test_the_next_agent_knows_whether_strangers_answered(witnessed: bool) -> None:  # noqa: FBT001 - a case
    exit_ = Exit(Sensitivity(hold_down=1.0), before=State.SUSPECT, witnessed=witnessed)
    exit_.answers.discard(Target.PUBLIC)
    exit_.up().run(20.0)
    assert exit_.verdict.state is (State.SUSPECT if witnessed else State.GOOD)
    assert exit_.verdict.witnessed is witnessed


def test_an_alarm_that_was_right_does_not_make_the_next_one_later() -> None:
    exit_ = Exit(Sensitivity(hold_down=0.01)).up().run(15.0, sends=1000, gets=1000)
    took = []
    for _ in range(10):
        exit_.answers.discard(Target.PUBLIC)
        took.append(exit_.until(State.SUSPECT, 2.0, sends=1000))
        exit_.until(State.DEAD, 2.0)  # clients are elsewhere by now
        exit_.answers.add(Target.PUBLIC)
        exit_.until(State.GOOD, 10.0)
        exit_.run(1.0, sends=1000, gets=1000)
    assert max(took) < min(took) + 0.06


def test_what_is_sent_while_it_is_down_is_no_false_alarm() -> None:
    exit_ = Exit(Sensitivity(hold_down=0.01)).up().run(15.0, sends=1000, gets=1000)
    for _ in range(5):
        exit_.verdict.said(exit_.now, up=False, cause="its tunnel is down")
        exit_.run(0.3, sends=1000)
        exit_.up().until(State.GOOD, 10.0)
        exit_.run(1.0, sends=1000, gets=1000)
    exit_.answers.discard(Target.PUBLIC)
    assert exit_.until(State.SUSPECT, 2.0, sends=1000) < 0.25


def test_clients_that_are_answered_keep_it_from_being_dead_not_from_being_suspect() -> None:
    exit_ = Exit().up().run(15.0, sends=100, gets=100)
    exit_.answers.clear()
    exit_.run(30.0, sends=100, gets=100)
    assert exit_.verdict.state is State.SUSPECT


def test_unanswered_packets_ask_strangers_at_once_where_there_is_no_near_target() -> None:
    exit_ = Exit(near=False).up().run(15.0, sends=1000, gets=1000)
    asked, began = len(exit_.asked), exit_.now
    exit_.run(0.2, sends=1000)
    assert 1 <= len(exit_.asked) - asked <= 5  # it is answered, and all is well
    assert exit_.asked[asked][0] < began + 0.06
    assert exit_.verdict.state is State.GOOD


def test_an_exit_without_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="without any target"):
        Verdict(0.0, near=False, public=False)


# The agent's own absence


@pytest.mark.parametrize("away", [0.2, 1.0, 5.0, 3600.0])
def test_a_tick_that_comes_late_is_no_silence(away: float) -> None:
    exit_ = Exit().up().run(5.0, sends=1000, gets=1000)
    for lost in (False, True):
        if lost:  # the last questions before it, too
            exit_.answers.clear()
            exit_.tick()
            exit_.answers.update(Target)
        exit_.now = exit_.verdict.wake + away
        exit_.run(5.0, sends=1000, gets=1000)
        assert exit_.verdict.state is State.GOOD


@pytest.mark.parametrize("stopped", [0.2, 1.0, 5.0])
def test_a_machine_that_stops_as_a_whole_is_no_silence(stopped: float) -> None:
    exit_ = Exit()
    exit_.rtt = 0.4  # so that many questions are on the way
    exit_.up().run(5.0, sends=1000, gets=1000)
    exit_.now = exit_.verdict.wake + stopped
    exit_.delay(stopped)
    for _ in range(100):
        exit_.tick()
        assert exit_.verdict.state is State.GOOD, exit_.verdict.cause


def test_a_silence_is_measured_without_the_time_in_which_nobody_listened() -> None:
    exit_ = Exit().up().run(5.0)
    exit_.answers.clear()
    exit_.tick()
    exit_.run(0.15)
    exit_.now = exit_.verdict.wake + 5.0
    assert exit_.until(State.DEAD, 2.0) > 0.4


def test_counters_that_begin_anew_mean_nothing() -> None:
    exit_ = Exit().up().run(5.0, sends=1000, gets=1000)
    exit_.sent = exit_.received = 0
    exit_.run(5.0, sends=1000, gets=1000)
    assert exit_.verdict.state is State.GOOD


# Whatever comes


@st.composite
def calls(draw: st.DrawFn) -> list[tuple[str, float, int]]:
    kinds = st.sampled_from(["tick", "tick", "tick", "tick", "up", "down", "near", "public"])
    return draw(st.lists(st.tuples(kinds, st.floats(0.0, 2.0), st.integers(0, 0xFFFF)), max_size=200))


@given(calls(), st.booleans())
def test_no_sequence_of_calls_confuses_it(sequence: list[tuple[str, float, int]], near: bool) -> None:  # noqa: FBT001 - drawn
    verdict = Verdict(0.0, near=near)
    now, up = 0.0, False
    open_: dict[Target, list[int]] = {target: [] for target in Target}
    for kind, wait, number in sequence:
        now += wait
        if kind in ("up", "down"):
            up = kind == "up"
            verdict.said(now, up=up, cause="so")
        elif kind == "tick":
            for target, asked in verdict.tick(now, number, number // 2):
                open_[target].append(asked)
            assert verdict.wake > now
        else:
            numbers = open_[Target(kind)]
            verdict.answered(Target(kind), numbers[number % len(numbers)] if numbers else number, now)
        assert 0.0 <= verdict.loss <= 1.0
        assert verdict.cause
        if not up:
            assert verdict.state is State.DEAD


# On simulated paths


@pytest.mark.parametrize(("stream", "least", "most"), [(10.0, 0.25, 0.6), (1000.0, 0.12, 0.2)])
def test_packets_without_an_answer_stand_for_questions_where_many_of_these_get_lost(
    stream: float, least: float, most: float
) -> None:
    scene = Scene(0.02, stream=stream)
    scene.out = [Independent(seeded("lossy"), 0.35), Hole(4 * BEGIN)]
    first = next(change for change in changes(scene, 5 * BEGIN) if change.at >= 4 * BEGIN)
    assert first.state is State.SUSPECT
    assert least < first.at - 4 * BEGIN < most


def test_long_silences_are_remembered_for_hours_since_where_strangers_are_asked_few_are_seen() -> None:
    trail, hours = Trail(Sensitivity(), STRANGERS), 3600.0

    def dead_after(now: float) -> float:
        trail._set_thresholds(now)
        return trail.dead_after

    assert dead_after(0.0) == Sensitivity.dead_after
    for at in (0.0, 2.5, 5.0):
        trail.long_silences.learn(at * hours, 0.6)
    # As if they were exponential beyond 0.4 s: one false death is put up with in sixty times as long.
    assert dead_after(5.1 * hours) == pytest.approx(0.4 + 0.2 * math.log(3 * 60))
    assert dead_after(6.1 * hours) == pytest.approx(0.4 + 0.2 * math.log(2 * 60))  # the first is forgotten
    assert dead_after(11.1 * hours) == Sensitivity.dead_after
    for _ in range(100):
        trail.long_silences.learn(7 * hours, 2.4)
    assert dead_after(7.1 * hours) == Sensitivity.dead_at_most


@pytest.mark.parametrize("seed", ["one", "two", "three"])
def test_where_nobody_ever_answers_clients_their_packets_prove_nothing_on_a_lossy_path_either(seed: str) -> None:
    scene = Scene(0.02, stream=1000.0, echoed=False)
    scene.out = [Independent(seeded(seed), 0.35)]
    causes = [change.cause for change in changes(scene, 120.0) if change.state is not State.GOOD]
    assert not [cause for cause in causes if "no answer to" in cause]


@given(rtts, places, moments, st.sampled_from(["both", "out", "back"]))
def test_a_black_hole_is_noticed_in_time(rtt: float, where: float, at: float, way: str) -> None:
    scene = Scene(rtt, stream=1000.0, where=where, stream_from=BEGIN - 1.0)
    scene.out = [Hole(at)] if way != "back" else []
    scene.back = [Hole(at)] if way != "out" else []
    first, second = changes(scene, at + 5.0)
    assert (first.state, second.state) == (State.SUSPECT, State.DEAD)
    assert first.at - at <= 0.2 + 1.5 * rtt
    assert second.at - at <= 0.8 + 2 * rtt


def test_nobody_says_that_the_near_target_answers_when_nothing_does() -> None:
    for seed in range(20):
        random = seeded(seed)
        scene = Scene(0.02, stream=200.0, stream_from=BEGIN)
        scene.out = [Independent(random, 0.1), Hole(2 * BEGIN)]
        for change in changes(scene, 2 * BEGIN + 2.0, seed):
            assert change.cause.startswith("no answer to")


@given(rtts, places, moments)
def test_a_black_hole_that_nobody_sends_into_kills_within_a_second(rtt: float, where: float, at: float) -> None:
    scene = Scene(rtt, [Hole(at)], [Hole(at)], where=where)
    last = changes(scene, at + 5.0)[-1]
    assert last.state is State.DEAD
    assert last.at - at <= 0.9 + 2 * rtt


scenes = st.builds(Scene, rtts, where=places, stream=st.sampled_from([0.0, 200.0]), near=st.booleans())


@given(scenes, moments, st.booleans(), st.booleans(), st.sampled_from([0.0, 0.01, 0.05]))
def test_a_stall_of_half_a_second_kills_nothing(
    scene: Scene,
    at: float,
    waits: bool,  # noqa: FBT001 - drawn
    both: bool,  # noqa: FBT001 - drawn
    loss: float,
) -> None:
    stall = Hole(at, at + 0.5, waits=waits)
    random = seeded(0)
    scene.out = [stall, Independent(random, loss)]
    scene.back = [stall, Independent(random, loss)] if both else [Independent(random, loss)]
    states = [change.state for change in changes(scene, at + 5.0)]
    assert State.DEAD not in states
    assert states in ([], [State.SUSPECT, State.GOOD])


@given(rtts, st.sampled_from([0.0, 200.0]), st.booleans(), st.floats(0.1, 3.0), st.integers(0, 100))
def test_an_absence_of_the_agent_accuses_nobody(
    rtt: float,
    stream: float,
    near: bool,  # noqa: FBT001 - drawn
    absent: float,
    seed: int,
) -> None:
    scene = Scene(rtt, stream=stream, near=near, absent_every=4.0, absent=absent)
    assert changes(scene, 20.0, seed) == []


SOUND = [model for model in MODELS if "burst" not in model and "stall" not in model]


@pytest.mark.parametrize("model", SOUND)
def test_paths_without_long_silences_give_no_alarm(model: str) -> None:
    found = alarms(model, 0.08, busy=False, near=True, days=HOUR / 6)
    assert (found.suspicions, found.deaths) == (0, 0)
    assert found.public < 1.0


@pytest.mark.parametrize("model", sorted(MODELS.keys() - set(SOUND)))
def test_bursts_and_stalls_may_make_suspect(model: str) -> None:
    found = alarms(model, 0.02, busy=False, near=True, days=HOUR / 2)
    assert found.deaths == 0 or "200 ms" in model
    assert found.suspicions < 24 * (100 if "200 ms" in model else 40)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_faults_are_noticed(fault: Fault) -> None:
    suspected, dead = times(fault, 0.02, 2)
    slow = 10.0 if "rises" in fault.what else 0.0
    assert max(suspected) < slow + (0.6 if "bursts" in fault.before else 0.45)
    assert max(dead) < slow + 1.0


def test_usual_silences_make_it_wait_longer_but_a_few_do_not() -> None:
    def waits(silences: int) -> float:
        exit_ = Exit().up().run(5.0)
        for _ in range(silences):
            exit_.answers.clear()
            exit_.until(State.SUSPECT, 1.0)
            exit_.run(0.1)
            exit_.answers.update(Target)
            exit_.run(100.0)
        exit_.answers.clear()
        return exit_.until(State.SUSPECT, 1.0)

    assert waits(4) < waits(0) + NEAR.idle
    assert waits(8) > waits(0) + 0.05


class Stalling(Exit):
    """One whose path holds packets up, as TCP and full queues do: they come together when it goes on."""

    def stall(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.tick()
            self._coming = [(max(at, end), target, number) for at, target, number in self._coming]

    def due(self) -> float:
        return self.verdict._trails[Target.NEAR].due


def test_answers_that_were_held_up_together_end_one_silence_not_many() -> None:
    exit_ = Stalling()
    exit_.up().run(5.0)
    fresh = Exit().up().run(5.0)
    for _ in range(4):  # as many as are put up with
        exit_.stall(0.38)
        exit_.run(100.0)
    exit_.answers.clear()
    fresh.answers.clear()
    assert exit_.until(State.SUSPECT, 1.0) == pytest.approx(fresh.until(State.SUSPECT, 1.0), abs=0.05)


def test_how_long_they_were_held_up_is_not_how_long_the_path_is() -> None:
    exit_ = Stalling()
    exit_.up().run(5.0)
    before = exit_.due()
    exit_.stall(3.0)
    exit_.run(0.3)
    assert exit_.due() < before + 0.05
    exit_.rtt = 0.25  # it is another path from now on
    exit_.run(3.0)
    assert exit_.due() > exit_.rtt
    assert exit_.verdict.latency == pytest.approx(exit_.rtt, rel=0.2)


def test_one_late_answer_stretches_what_is_expected_within_limits() -> None:
    exit_ = Stalling()
    exit_.up().run(5.0)
    before, answers = exit_.due(), exit_.verdict._trails[Target.NEAR].answers
    while not exit_._coming:
        exit_.tick()
    exit_.delay(0.4)
    late, exit_.answers = exit_.answers, set()
    exit_.run(0.5)
    assert exit_.verdict._trails[Target.NEAR].answers > answers
    assert before < exit_.due() < 3 * before
    exit_.answers = late
    exit_.run(3.0)
    assert exit_.due() == pytest.approx(before, abs=0.01)


def test_what_comes_in_after_nobody_has_listened_ends_no_silence() -> None:
    exit_ = Stalling()
    exit_.up().run(5.0)
    answers, exit_.answers = exit_.answers, set()
    while exit_.verdict._trails[Target.NEAR].misses < 3:
        exit_.tick()
    exit_.answers = answers
    exit_.tick()
    exit_.now += 1.0  # the agent is away, and takes the time of reading for that of coming
    exit_.delay(0.9)
    exit_.run(60.0)
    exit_.answers = set()
    assert exit_.until(State.DEAD, 1.0) < 0.9


@pytest.mark.parametrize("rtt", [0.0003, 0.02, 0.08])
def test_a_short_outage_is_none_and_a_longer_one_is(rtt: float) -> None:
    def suspected(seconds: float) -> int:
        found = 0
        for phase in range(20):
            hole = Hole(BEGIN + phase * 0.0047, BEGIN + phase * 0.0047 + seconds)
            scene = Scene(rtt, stream=1000.0, stream_from=BEGIN - 3, out=[hole], back=[hole])
            found += any(change.state is State.SUSPECT for change in changes(scene, BEGIN + 1, phase))
        return found

    assert suspected(0.095) == 0
    assert suspected(0.155) == 20


def test_when_the_internet_is_gone_the_way_there_and_back_is_waited_for_once() -> None:
    suspected, _ = times(next(fault for fault in FAULTS if "internet" in fault.what), 0.08, 20)
    assert max(suspected) < 0.285


def test_idle_probes_take_less_than_3_kb_a_second() -> None:
    exit_ = Exit().up().run(100.0)
    outer = OVERHEAD + math.ceil(ECHO / 16) * 16
    assert len(exit_.asked) / 100 * outer < 1000
    busy = Exit().up().run(100.0, sends=1000, gets=1000)
    assert len(busy.asked) / 100 * outer < 3000


def test_its_settings_can_be_changed() -> None:
    calm = Sensitivity(suspect_after=0.3, dead_after=1.5, hold_down=1.0)
    exit_ = Exit(calm).up().run(5.0)
    exit_.answers.clear()
    assert exit_.until(State.SUSPECT, 1.0) > 0.3
    assert exit_.until(State.DEAD, 2.0) > 1.0
