"""The state model of stop, arm, lease, homing and reset: all states, all events, and the laws that hold in each."""

from __future__ import annotations

from collections import defaultdict
from copy import deepcopy

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drivers.authority import FIRST_WORD, HOMING, Authority
from robot_rl.types import RobotRLError

AGE = 0.2
SOURCES = ("teleop", "policy")
HOLDERS = (*SOURCES, HOMING)
RANK = {holder: rank for rank, holder in enumerate(HOLDERS)}


class Case:
    """An authority and its clock, which may be copied."""

    def __init__(self) -> None:
        self.authority, self.time = Authority(SOURCES, AGE, 1000), 50.0

    @property
    def key(self):
        """What a state is, as far as the future depends on it; a lease is only ever compared with the newest."""
        a = self.authority
        return a.state, a.holder if a.held else "", a.reason.startswith("it was never armed")

    def does(self, event):
        """Whether the authority took `event`."""
        name, who = event
        a, known = self.authority, {"right": self.authority.lease, "old": self.authority.lease - 1, "none": 0}
        if name == "arm":
            try:
                a.arm(who, self.time)
            except RobotRLError as error:
                assert str(error)
                return False
            return True
        if name == "wait":
            self.time += who
            a.watch(self.time)
            return None
        acts = {
            "word": lambda: a.hear(who, self.time),
            "beat": lambda: a.beat(known[who], self.time),
            "release": lambda: a.release(who),
            "stop": lambda: a.stop(who),
            "reset": a.reset,
        }
        return acts[name]()


EVENTS = [
    *[(name, who) for name in ("arm", "release") for who in (*HOLDERS, "stranger")],
    *[("word", who) for who in (*SOURCES, "stranger")],
    *[("beat", whose) for whose in ("right", "old", "none")],
    ("stop", "a person"), ("stop", ""), ("reset", None),
    ("wait", 0.9 * AGE), ("wait", 1.1 * AGE), ("wait", 1.1 * FIRST_WORD),
]  # fmt: skip


def laws(before, event, after, took):
    """What holds of every transition."""
    a, b, (name, who) = before.authority, after.authority, event
    assert b.lease - a.lease in (0, 1) and (took is not False or name == "stop" or b.lease == a.lease)
    assert b.held == (not b.reason), "it says why nobody may command, and only then"
    if a.latched and name != "reset":
        assert b.state == "stopped" and b.reason == a.reason and b.lease == a.lease, "latched until a reset"
    if a.latched and name == "reset":
        assert b.state == "idle" and b.lease == a.lease, "a reset moves nothing and gives nobody a lease"
    if name == "reset" and not a.latched:
        assert after.key == before.key and b.lease == a.lease, "a reset clears the latch and only that"
    if name == "stop":
        assert b.latched and b.reason
    if b.held and not (a.held and a.holder == b.holder):
        assert b.lease == a.lease + 1, "whoever newly holds has a new lease"
        assert name in ("arm", "word"), "only by being armed, or by right of way"
        assert not a.latched
        assert not a.held or RANK[b.holder] < RANK[a.holder], "a lower source never takes from a higher one"
    if name == "arm" and a.held and who in RANK and RANK[who] >= RANK[a.holder]:
        assert took is False
    if b.state == "commanded" and a.state != "commanded":
        assert name in ("word", "beat"), "nobody commands who has said nothing"
    if a.state == "commanded" and name == "wait" and who > AGE:
        assert b.latched and "silent" in b.reason
    if a.held and name == "wait" and who > FIRST_WORD:
        assert b.latched
    if name == "release":
        assert (b.state == "idle") if took else after.key == before.key
        assert took is (a.held and a.holder == who)
    if name == "beat" and took:
        assert a.holder == HOMING and who == "right"


def explored():
    """Breadth first from the beginning: every state that can be reached, and where every event leads from there."""
    begin = Case()
    seen, edges, queue = {begin.key: begin}, {}, [begin]
    while queue:
        case = queue.pop(0)
        for event in EVENTS:
            after = deepcopy(case)
            took = after.does(event)
            laws(case, event, after, took)
            edges[case.key, event] = after.key
            if after.key not in seen:
                seen[after.key] = after
                queue.append(after)
    return seen, edges


def test_every_event_in_every_state_keeps_the_laws():
    seen, edges = explored()
    held = {(state, holder, False) for state in ("armed", "commanded") for holder in HOLDERS}
    assert set(seen) == held | {("idle", "", True), ("idle", "", False), ("stopped", "", False)}
    assert len(edges) == len(seen) * len(EVENTS)
    print(f"{len(seen)} states, {len(edges)} transitions")


def test_the_ways_between_the_states_are_those_of_the_table():
    """By kind, whoever holds: the table in authority.py and the picture in docs/robot.md show these and no others."""
    _, edges = explored()
    ways = defaultdict(set)
    for ((state, _, _), (name, _)), (then, _, _) in edges.items():
        if then != state:
            ways[state, then].add(name)
    assert dict(ways) == {
        ("idle", "armed"): {"arm"},
        ("idle", "stopped"): {"stop"},
        ("armed", "commanded"): {"word", "beat"},
        ("armed", "idle"): {"release"},
        ("armed", "stopped"): {"stop", "wait"},
        ("commanded", "armed"): {"arm"},  # of a source that goes before
        ("commanded", "idle"): {"release"},
        ("commanded", "stopped"): {"stop", "wait"},
        ("stopped", "idle"): {"reset"},
    }


def test_out_of_every_state_a_stop_latches_and_only_the_reset_leads_back():
    seen, edges = explored()
    assert all(edges[key, ("stop", "a person")][0] == "stopped" for key in seen)
    out = {event for (key, event), then in edges.items() if key[0] == "stopped" and then != key}
    assert out == {("reset", None)}


def test_a_heartbeat_faster_than_the_limit_keeps_homing_and_its_silence_ends_it():
    case = Case()
    case.does(("arm", HOMING))
    for _ in range(50):
        assert case.does(("beat", "right"))
        case.does(("wait", 0.9 * AGE))
    assert case.authority.state == "commanded"
    case.does(("beat", "old"))  # of an owner before
    case.does(("wait", 0.2 * AGE))
    assert case.authority.latched and "homing's owner" in case.authority.reason


def test_a_refusal_names_who_holds_or_why_it_is_stopped_and_the_remedy():
    authority = Authority(SOURCES, AGE)
    authority.arm("teleop", 0.0)
    for lower in ("policy", HOMING, "teleop"):
        with pytest.raises(RobotRLError, match="'teleop' commands the arm already"):
            authority.arm(lower, 0.1)
    authority.stop("the tool feels 900 N")
    with pytest.raises(RobotRLError, match="900 N.*only a person.*reset_arm"):
        authority.arm("teleop", 0.2)
    with pytest.raises(RobotRLError, match="'stranger' may not command.*teleop, policy"):
        authority.arm("stranger", 0.2)


def test_a_policy_does_not_end_homing_by_a_word_but_by_being_armed():
    authority = Authority(SOURCES, AGE)
    authority.arm(HOMING, 0.0)
    assert authority.beat(authority.lease, 0.1) and not authority.hear("policy", 0.1)
    home = authority.lease
    authority.arm("policy", 0.1)
    assert authority.lease == home + 1 and not authority.beat(home, 0.2)


class Machine(RuleBasedStateMachine):
    """Long random ways, on which what is hidden in a state (times, lease numbers) builds up."""

    def __init__(self):
        super().__init__()
        self.case, self.highest = Case(), 1000

    @rule(event=st.sampled_from(EVENTS))
    def event(self, event):
        before = deepcopy(self.case)
        laws(before, event, self.case, self.case.does(event))

    @rule(seconds=st.floats(0, 2 * FIRST_WORD))
    def wait(self, seconds):
        before = deepcopy(self.case)
        laws(before, ("wait", seconds), self.case, self.case.does(("wait", seconds)))

    @invariant()
    def leases_only_rise(self):
        assert self.case.authority.lease >= self.highest
        self.highest = self.case.authority.lease


TestMachine = Machine.TestCase
