"""A person's session under a fake clock, on the robot of lockstep.py: what is kept, what is held, what is lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from drivers.assisted import Person
from drivers.session import MARKS, NEXT, Collector, Session, Wanted
from drivers.sync import Stream
from drivers.teleop import EVENTS, DeviceLost, DeviceSilent
from robot_rl.episodes import EpisodeStore
from robot_rl.inspect import inspect
from tests.lockstep import Bench

PERIOD = 0.05


class Scripted:
    """Implements `Device`: a hand and events at given moments of the bench's time; it is lost from `lost` on."""

    name, keys = "scripted", ""

    def __init__(self, bench, events=(), held=(), lost=np.inf):
        self._bench, self._events, self._held, self._lost = bench, sorted(events), held, lost
        self.told = []  # of the fingers

    def hand(self):
        if self._bench.time >= self._lost:
            raise DeviceLost("scripted was unplugged")
        if any(a <= self._bench.time < b for a, b in self._held):
            return np.array([0.2, 0, 0, 0, 0, 0, -1.0])
        return None

    def events(self):
        come = [event for at, event in self._events if at <= self._bench.time]
        self._events = self._events[len(come) :]
        return come

    def fingers(self, closed):
        self.told.append(closed)

    def close(self):
        pass


class Shown(list):
    def show(self, status):
        self.append(status)


def collected(tmp_path, bench, device, episodes=1, **more):
    """Of the session of `device`: the store, and all that was shown."""
    env, shown = bench.env(source="teleop"), Shown()
    with EpisodeStore.create(tmp_path / "store", env.spec) as store:
        Collector(env, Person(device, env.spec), shown, store, bench, Wanted(episodes, 0.0, **more)).run()
    return store, shown


@pytest.fixture
def bench():
    made = Bench()
    made.source = "teleop"
    return made


def test_a_person_sees_the_cameras_that_policies_do_not(tmp_path, bench):
    wrist, picture = Stream("wrist", 2), np.full((4, 6, 3), 7, np.uint8)
    env, shown = bench.env(source="teleop", shown={"wrist": wrist}), Shown()
    device = Scripted(bench, [(bench.time + 0.2, "quit")], [])
    with EpisodeStore.create(tmp_path / "store", env.spec) as store:
        collector = Collector(env, Person(device, env.spec), shown, store, bench, Wanted(1, 0.0))
        collector._show()
        wrist.add(bench.time - 9.0, picture)  # however old: nobody acts on it
        collector.run()
    assert not shown[0].images and (shown[-1].images["wrist"] == picture).all() and not shown[-1].lagging


def test_nothing_moves_before_start_and_recording_begins_with_the_first_motion(tmp_path, bench):
    begin = bench.time
    held = [(begin, begin + 1.5), (begin + 4, begin + 6)]
    device = Scripted(bench, [(begin + 1, "start"), (begin + 5, "success")], held)
    store, shown = collected(tmp_path, bench, device)
    waiting = list(itertools.takewhile(lambda s: s.state == "waiting", shown))
    assert waiting and all(s.steps == 0 and s.rate == 0 for s in waiting)
    (episode,) = store
    assert episode.success and episode.terminated and episode.meta["mark"] == "success" and episode.meta["idle"] == 0
    assert len(episode) == pytest.approx(1.0 / PERIOD, abs=2)  # from 4 s, when the hand moved, to 5 s
    assert episode.obs["state"][-1, 0] > episode.obs["state"][0, 0] + 0.01
    assert "let go" in bench.stopped


def test_a_device_that_is_silent_for_a_while_holds_the_arm_and_loses_nothing(tmp_path, bench):
    begin = bench.time

    class Silent(Scripted):
        def hand(self):
            if begin + 0.5 <= bench.time < begin + 0.8 or begin + 3 <= bench.time < begin + 4:
                raise DeviceSilent("the page is silent")
            return super().hand()

    device = Silent(bench, [(begin + 1, "start"), (begin + 5, "success")], [(begin + 2, begin + 6)])
    store, shown = collected(tmp_path, bench, device)
    (episode,) = store
    assert episode.success and episode.meta["idle"] == pytest.approx(1.0 / PERIOD, abs=1)
    silent = [s for s in shown if s.message == "the page is silent"]
    assert {s.state for s in silent} == {"waiting", "recording"} and not any(s.held for s in silent)
    assert shown[-1].message != "the page is silent"


def test_while_the_dead_man_is_up_the_arm_holds_and_that_is_kept_as_steps(tmp_path, bench):
    t = bench.time + 3
    device = Scripted(bench, [(bench.time, "start"), (t + 1.5, "failure")], [(t, t + 0.5), (t + 1, t + 1.5)])
    store, _ = collected(tmp_path, bench, device, keep_failures=True)
    (episode,) = store
    still = np.abs(episode.action[:, :6]).max(1) < 1e-6
    assert still.sum() == episode.meta["idle"] == pytest.approx(0.5 / PERIOD, abs=1) and not episode.success
    np.testing.assert_allclose(np.diff(episode.obs["stamp/state"]), PERIOD, atol=1e-6)


def test_a_pause_holds_and_keeps_nothing(tmp_path, bench):
    t = bench.time + 3
    events = [(bench.time, "start"), (t + 0.5, "pause"), (t + 3.5, "pause"), (t + 4, "success")]
    store, shown = collected(tmp_path, bench, Scripted(bench, events, [(t, t + 5)]))
    (episode,) = store
    gaps = np.diff(episode.obs["stamp/state"])
    (pause,) = episode.meta["pauses"]
    assert gaps[pause - 1] == pytest.approx(3.05, abs=0.11) and len(episode) < 1.2 / PERIOD
    np.testing.assert_allclose(np.delete(gaps, pause - 1), PERIOD, atol=1e-6)
    resting = [s for s in bench.rulings if s.verdict == "stopped"]
    assert not resting  # its source never fell silent
    assert {"paused", "recording"} <= {s.state for s in shown}


def test_the_time_limit_wants_a_judgement_and_the_arm_is_held_meanwhile(tmp_path, bench):
    t = bench.time + 3
    events = [(bench.time, "start"), (t + 10, "success")]
    store, shown = collected(tmp_path, bench, Scripted(bench, events, [(t, t + 0.2)]))
    (episode,) = store
    assert len(episode) == 50 and episode.success and episode.terminated
    judging = [s for s in shown if s.state == "judging"]
    assert judging and "time limit" in judging[0].message and judging[0].rate > 0 == judging[-1].rate


def test_discarded_and_failed_attempts_are_not_kept_unless_asked_for(tmp_path, bench):
    t, events, held = bench.time, [], []
    for k, mark in enumerate(["discard", "failure", "success"]):
        events += [(t + 10 * k, "start"), (t + 10 * k + 6, mark)]
        held += [(t + 10 * k + 5, t + 10 * k + 7)]
    store, _ = collected(tmp_path, bench, Scripted(bench, events, held))
    assert [e.meta["mark"] for e in store] == ["success"] and store[0].meta["attempt"] == 2
    bench, later = Bench(), Bench().time - t
    bench.source = "teleop"
    events, held = [(at + later, event) for at, event in events], [(a + later, b + later) for a, b in held]
    store, _ = collected(
        tmp_path, bench, Scripted(bench, events, held), episodes=3, keep_failures=True
    )  # goes on with its count
    assert [e.meta["mark"] for e in store] == ["success", "failure", "success"]
    assert [e.meta["attempt"] for e in store] == [2, 4, 5]


def test_the_last_episode_can_be_discarded_until_the_next_start(tmp_path, bench):
    t = bench.time
    events = [(t, "start"), (t + 6, "success"), (t + 7, "discard"), (t + 7, "discard"), (t + 8, "quit")]
    store, shown = collected(tmp_path, bench, Scripted(bench, events, [(t + 5, t + 7)]), episodes=2)
    assert len(store) == 0 and max(s.episodes for s in shown) == 1 and shown[-1].state == "done"


def test_who_quits_in_an_episode_keeps_the_earlier_ones(tmp_path, bench):
    t = bench.time
    events = [(t, "start"), (t + 6, "success"), (t + 10, "start"), (t + 16, "quit")]
    store, _ = collected(tmp_path, bench, Scripted(bench, events, [(t + 5, t + 7), (t + 15, t + 20)]), episodes=5)
    assert len(store) == 1 and "let go" in bench.stopped


@pytest.mark.parametrize("when", [0.5, 4.0, 5.5])  # waiting, ready, recording
def test_a_device_that_is_unplugged_is_held_and_named(tmp_path, bench, when):
    t = bench.time
    device = Scripted(bench, [(t + 1, "start")], [(t + 5, t + 9)], lost=t + when)
    with pytest.raises(DeviceLost, match="unplugged"):
        collected(tmp_path, bench, device)
    assert bench.stopped and len(EpisodeStore.open(tmp_path / "store")) == 0


def test_an_arm_that_stops_ends_the_episode_and_wants_a_judgement(tmp_path, bench):
    t = bench.time
    device = Scripted(bench, [(t, "start"), (t + 9, "discard"), (t + 9.5, "quit")], [(t + 3, t + 9)])
    plain, bench.measure = bench.measure, lambda: (bench.silent.add("arm") if bench.time > t + 5 else None, plain())
    _, shown = collected(tmp_path, bench, device)
    assert any(s.state == "judging" and "old" in s.message for s in shown)
    assert any(s.lagging for s in shown)  # before it was too old


def test_a_full_disk_is_told_and_nothing_starts(tmp_path, bench):
    t = bench.time
    env, shown = bench.env(source="teleop"), Shown()
    device = Scripted(bench, [(t, "start"), (t + 5, "quit")], [(t, t + 5)])
    with EpisodeStore.create(tmp_path / "store", env.spec) as store:
        Collector(env, Person(device, env.spec), shown, store, bench, Wanted(1, free=1e18)).run()
    assert any("to stay free" in s.message for s in shown) and {s.state for s in shown} == {"waiting", "done"}


def test_every_event_in_every_state_leads_somewhere_or_is_told():
    for state in ("waiting", "recording", "paused", "judging"):
        for event in EVENTS:
            session = Session()
            session.state = state
            session.press(event)
            moved = (state, event) in NEXT or (state != "waiting" and event in MARKS)
            assert (session.state != state or bool(session.mark)) == moved
            assert moved or "means nothing" in session.message


def test_inspect_tells_how_much_of_the_demonstrations_is_idle(tmp_path, bench):
    t = bench.time + 3
    device = Scripted(bench, [(bench.time, "start"), (t + 2, "success")], [(t, t + 1)])
    store, _ = collected(tmp_path, bench, device)
    share = store[0].meta["idle"] / len(store[0])
    assert f"idle        {share:.1%} of the steps" in inspect(store.path) and 0.4 < share < 0.6
