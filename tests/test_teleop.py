"""A person at the controls: dead zone, keyboard, gamepad; the mask, and hand-overs that ask nothing too quick."""

from __future__ import annotations

import ctypes
import glob
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import check_device
from drivers.assisted import Assisted, Corrector, Person
from drivers.devices import open_device
from drivers.keyboard import AXES, HOLD, Keyboard
from drivers.teleop import OFF, ON, DeadZone, DeviceLost, Status, action_of_hand
from drivers.terminal_screen import BELL, TerminalScreen
from robot_rl import control
from robot_rl.rollout import rollout
from robot_rl.types import Channel, Decision, RobotRLError, Spec
from tests.lockstep import ROBOT, Bench, with_limits

PERIOD = 1.0 / ROBOT.rate
SPEC = ROBOT.spec()


class Pressed:
    """Implements `Device`: its dead-man is held at the given times of `now`; from `lost` on it is gone."""

    name, keys = "pressed", ""

    def __init__(self, now, held, lost=np.inf, motion=(0.5, 0, 0, 0, 0, 0)):
        self.now, self.held, self.lost, self.motion = now, held, lost, motion
        self.come, self.told = [], []

    def hand(self):
        if self.now() >= self.lost:
            raise DeviceLost("pressed was unplugged")
        held = any(begin <= self.now() < end for begin, end in self.held)
        return np.append(self.motion, -1.0) if held else None

    def events(self):
        come, self.come = self.come, []
        return come

    def fingers(self, closed):
        self.told.append(closed)

    def close(self):
        pass


class Random:
    """A policy that wants something else every step, in chunks of 4."""

    n_obs = 1

    def __init__(self, seed, size=1.0):
        self._rng, self._size = np.random.default_rng(seed), size

    def reset(self, seed=None):
        pass

    def decide(self, obs, *, explore):
        return Decision(self._rng.uniform(-self._size, self._size, (4, 7)).astype(np.float32))


# ------------------------------------------------------------------------------------------------ laws


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(np.array), st.booleans())
def test_a_dead_zone_lets_no_drift_through_and_never_makes_a_motion_larger(motion, moved):
    zone = DeadZone()
    zone.moves = moved
    out, norm = zone(motion), np.linalg.norm(motion)
    assert zone.moves == (norm > (OFF if moved else ON)) and out.any() == zone.moves
    assert (np.abs(out) <= np.abs(motion) + 1e-12).all() or norm > 1
    assert (np.abs(out) <= 1).all() and (out * motion >= 0).all()


def test_drift_of_a_thousandth_engages_nothing_and_a_motion_that_begins_ends_only_well_below():
    zone = DeadZone()
    assert not any(zone(drift).any() for drift in np.random.default_rng(0).normal(0, 0.001, (1000, 6)))
    unit = np.eye(6)[0]
    assert [zone(size * unit).any() for size in (0.09, 0.11, 0.09, 0.06, 0.04, 0.09)] == [0, 1, 1, 1, 0, 0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=7, max_size=7).map(np.array), st.floats(0.01, 2), st.floats(0.1, 9)
)
def test_a_hand_asks_for_no_more_speed_than_the_limits_allow_and_goes_where_it_points(hand, speed, turn_speed):
    device = Pressed(lambda: 0, [(0, 1)])
    device.hand = lambda: hand
    limits = with_limits(speed=speed, turn_speed=turn_speed).limits
    free, paced = (Person(device, SPEC, given)(np.zeros(7)) for given in (None, limits))
    for part, most in ((slice(0, 3), speed), (slice(3, 6), turn_speed)):
        asked, given = (control.to_physical(action, SPEC.action)[part] for action in (free, paced))
        assert np.linalg.norm(given) <= most * PERIOD * (1 + 1e-4) + 1e-6
        share = np.linalg.norm(given) / max(np.linalg.norm(asked), 1e-9)
        np.testing.assert_allclose(given, share * asked, atol=1e-5)
        if np.linalg.norm(asked) <= most * PERIOD:
            np.testing.assert_allclose(given, asked, atol=1e-6)
    assert paced[6] == free[6]


@pytest.mark.parametrize("motion", [np.ones(6), -np.ones(6), np.eye(6)[2]])
def test_a_stick_pushed_to_its_end_moves_a_slow_arm_as_fast_as_it_may(motion):
    bench = Bench(with_limits(speed=0.25, acceleration=2.0, turn_speed=0.6, turn_acceleration=6.0))
    device = Pressed(lambda: bench.time, [(bench.time + 1.5, np.inf)], motion=0.999 * motion)
    env = bench.env(human=Person(device, SPEC, bench.robot.limits))
    rollout(env, Random(0, 0.0), explore=False, max_steps=30)
    assert not env.aborted, env.aborted
    sent = np.array([r.sent.position for r in bench.rulings])
    assert np.linalg.norm(np.diff(sent, axis=0), axis=1).max() > 0.15 * bench.period
    _require_within_limits(bench)


taps = st.lists(st.tuples(st.floats(0, 2.4), st.floats(0.1, 0.6)), max_size=6)  # from 100 ms on


@settings(max_examples=12, deadline=None)
@given(taps)
def test_the_mask_is_the_dead_man_to_the_tick(presses):
    bench = Bench()
    begin = bench.time + 1.0  # preparing takes a second
    device = Pressed(
        lambda: bench.time, [(begin + at, begin + at + long) for at, long in presses], motion=0.2 * np.ones(6)
    )
    env = bench.env(human=Person(device, SPEC))
    episode = rollout(env, Random(0, 0.2), explore=False)
    assert len(episode) == 50 and not env.aborted, env.aborted
    ticks = begin + PERIOD * np.arange(len(episode))
    clear = np.array([min([abs(t - edge) for pair in device.held for edge in pair], default=1) > 1e-6 for t in ticks])
    held = np.array([any(a <= t < b for a, b in device.held) for t in ticks])
    np.testing.assert_array_equal(episode.intervened[clear], held[clear])
    for at, long in presses:  # no tap of 100 ms is missed
        if at + long < 2.4:
            assert episode.intervened[int(np.ceil(at / PERIOD)) : int((at + long) / PERIOD) + 1].any()


def test_a_thousand_hand_overs_never_ask_a_step_beyond_the_limits():
    """Of all setpoints of the servo: position and turn a period, and the change of speed."""
    rng, changes = np.random.default_rng(3), 0
    for seed in range(40):
        bench = Bench(with_limits(speed=0.25, acceleration=2.0, turn_speed=0.6, turn_acceleration=6.0))
        held, at = [], bench.time + 1.0
        while at < bench.time + 4.0:
            held.append((at := at + rng.uniform(0.05, 0.1), at := at + rng.uniform(0.05, 0.1)))
        device = Pressed(lambda bench=bench: bench.time, held, motion=rng.choice([-1.0, 1.0], 6))
        env = bench.env(human=Person(device, SPEC, bench.robot.limits))
        episode = rollout(env, Random(seed, 0.2), explore=False)
        assert not env.aborted, env.aborted
        changes += int(np.abs(np.diff(episode.intervened.astype(int))).sum())
        _require_within_limits(bench)
    print(f"{changes} take-overs and hand-backs")
    assert changes >= 1000


def _require_within_limits(bench):
    limits, period = bench.robot.limits, bench.period
    sent = np.array([r.sent.position for r in bench.rulings])
    speeds = np.diff(sent, axis=0) / period
    assert np.linalg.norm(speeds, axis=1).max() <= limits.speed * (1 + 1e-6)
    assert np.linalg.norm(np.diff(speeds, axis=0), axis=1).max() / period <= limits.acceleration * (1 + 1e-6)
    turns = np.array([r.sent.turn for r in bench.rulings])
    cosines = np.abs((turns[1:] * turns[:-1]).sum(1)).clip(0, 1)
    assert (2 * np.arccos(cosines)).max() / period <= limits.turn_speed * (1 + 1e-3)


# ------------------------------------------------------------------------------------------------ in an episode


@pytest.mark.parametrize("in_hand", [True, False])
def test_a_device_unplugged_in_mid_episode_holds_and_the_policy_does_not_go_on(in_hand):
    bench = Bench()
    device = Pressed(lambda: bench.time, [(bench.time + 1.2, np.inf)] if in_hand else [], lost=bench.time + 2.0)
    env = bench.env(human=Person(device, SPEC))
    episode = rollout(env, Random(0, 0.2), explore=False)
    assert "unplugged" in env.aborted and episode.truncated and "unplugged" in bench.stopped
    assert not episode.intervened[-1] and episode.intervened[-2] == in_hand and len(episode) == pytest.approx(21, abs=1)
    bench.sleep_until(bench.time + 0.3)  # it has braked
    before = bench.position.copy()
    bench.sleep_until(bench.time + 2)
    assert np.linalg.norm(bench.position - before) < 1e-3 and bench.stopped


def test_who_takes_over_finds_the_fingers_as_they_are():
    bench = Bench()
    device = Pressed(lambda: bench.time, [])
    env = bench.env(human=Person(device, SPEC))
    env.reset(0)
    env.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    env.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert device.told == [-1.0, 1.0]


@pytest.mark.parametrize("event, solved", [("success", True), ("failure", False), ("discard", False)])
def test_what_the_person_says_beside_a_policy_ends_its_episode(event, solved):
    bench, shown = Bench(), []
    device = Pressed(lambda: bench.time, [])
    aside = Corrector(Person(device, SPEC), type("Screen", (), {"show": lambda self, status: shown.append(status)})())
    aside.env = env = bench.env(human=aside, judge=aside.solved)
    aside.begin()
    env.reset(0)
    assert not env.step(np.zeros(7)).terminated
    device.come = [event]
    step = env.step(np.zeros(7))
    assert step.terminated == solved and step.truncated != solved and (event in env.aborted) != solved
    assert [s.state for s in shown] == ["correcting"] * 2 and shown[-1].steps == 2
    aside.begin()  # the next one
    device.come = ["quit"]
    aside(np.zeros(7))
    with pytest.raises(RobotRLError, match="quit"):
        aside.begin()


def test_beside_a_simulated_world_it_is_the_same():
    class World:
        spec = SPEC
        did = []

        def reset(self, seed=None):
            return {"state": np.zeros(1)}

        def step(self, action):
            from robot_rl.types import Step

            self.did.append(action)
            return Step({"state": np.zeros(1)}, np.asarray(action, np.float32), 0.0, False, False)

    bench, world = Bench(), World()
    device = Pressed(lambda: bench.time, [(bench.time + 0.5, bench.time + 1.0)], lost=bench.time + 1.5)
    begin = bench.time
    env = Assisted(world, bench, Person(device, SPEC))
    episode = rollout(env, Random(0), explore=False, max_steps=100)
    ticks = begin + PERIOD * np.arange(len(episode))
    held = (ticks >= begin + 0.5 - 1e-6) & (ticks < begin + 1.0 - 1e-6)
    assert np.abs(episode.intervened.astype(int) - held).sum() <= 2  # rounding at the two edges
    assert "unplugged" in env.aborted and episode.truncated and len(episode) == pytest.approx(31, abs=1)
    assert not world.did[-1][:6].any() and bench.time == pytest.approx(begin + len(episode) * PERIOD, abs=0.02)


# ------------------------------------------------------------------------------------------------ devices


class Typing:
    """Implements `Keys`: what was put into `keys`."""

    def __init__(self):
        self.keys = []

    def read(self):
        keys, self.keys = self.keys, []
        return keys

    def close(self):
        pass


def test_a_key_moves_its_axis_for_a_quarter_of_a_second_and_then_nobody_holds_the_dead_man():
    time, typing = [0.0], Typing()
    keyboard = Keyboard(typing, lambda: time[0])
    for key, (axis, way) in AXES.items():
        time[0] += 10
        assert keyboard.hand() is None
        typing.keys = ["5", key]
        hand = keyboard.hand()
        assert hand[axis] == 0.5 * way and not np.delete(hand, [axis, 6]).any()
        time[0] += HOLD - 1e-6
        assert keyboard.hand() is not None
        time[0] += 2e-6
        assert keyboard.hand() is None


def test_fingers_toggle_from_where_they_are_and_events_come_in_order():
    time, typing = [0.0], Typing()
    keyboard = Keyboard(typing, lambda: time[0])
    typing.keys = [" "]
    assert keyboard.hand()[6] == 1.0
    time[0] += 1
    keyboard.fingers(1.0)  # the policy had closed them
    typing.keys = [" ", "\n", "p", "y"]
    assert keyboard.hand()[6] == -1.0 and keyboard.events() == ["start", "pause", "success"] and not keyboard.events()


def test_a_screen_rings_when_a_stream_begins_to_lag_and_prints_what_changed():
    out = io.StringIO()
    screen = TerminalScreen("keys", out)
    for lagging in ("", "x", "x", "", "x"):
        screen.show(Status("recording", lagging=lagging))
    assert out.getvalue().count(BELL) == 2 and out.getvalue().count("RECORDING") == 1


def test_in_a_narrow_terminal_what_is_new_is_said_whole_once(monkeypatch):
    out = io.StringIO()
    out.isatty = lambda: True
    monkeypatch.setenv("COLUMNS", "60")
    screen = TerminalScreen("keys", out)
    question = "the time limit: success, failure or discard?"
    for steps in (1, 2):
        screen.show(Status("judging", steps=steps, message=question))
        screen._at = -1e9  # as if a while had passed
    lines = re.split("\r\x1b\\[K|\n", out.getvalue().removeprefix("keys\n"))
    assert lines.count(question) == 1 and lines.index(question) == 1
    assert [len(line) for line in lines if line.startswith("JUDGING")] == [59, 59]


@pytest.fixture
def pad():
    """A virtual controller of SDL itself: `pad(axes={...}, buttons={...})` moves it; `pad.unplug()`."""
    pygame = pytest.importorskip("pygame")
    from drivers.gamepad import _sdl

    _sdl()
    sdl = ctypes.CDLL(glob.glob(f"{pygame.__path__[0]}/../pygame.libs/libSDL2-2*.so*")[0])
    sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
    assert sdl.SDL_JoystickAttachVirtual(1, 6, 15, 0) == 0
    stick = ctypes.c_void_p(sdl.SDL_JoystickOpen(0))

    def move(axes=(), buttons=()):
        for axis in range(6):
            sdl.SDL_JoystickSetVirtualAxis(stick, axis, ctypes.c_int16(dict(axes).get(axis, -32768 * (axis > 3))))
        for button in range(15):
            sdl.SDL_JoystickSetVirtualButton(stick, button, int(button in buttons))

    move.sdl, move.unplug = sdl, lambda: sdl.SDL_JoystickDetachVirtual(0)
    yield move
    sdl.SDL_JoystickDetachVirtual(0)


def test_a_gamepad_moves_only_while_its_shoulder_is_held_and_holds_when_unplugged(pad):
    device = open_device("gamepad", SPEC)
    pad(axes={1: -32767})
    assert device.hand() is None
    pad(axes={1: -32767}, buttons={10})
    hand = device.hand()
    assert hand[0] == pytest.approx(1, abs=1e-3) and not hand[1:6].any() and hand[6] == -1
    pad(axes={0: 900}, buttons={10})  # drift of 0.03
    assert device.hand() is not None and not device.hand()[:6].any()
    pad(buttons={10, 0})
    assert device.hand()[6] == 1 and device.hand()[6] == 1  # once a press
    pad(buttons={6})
    assert device.events() == ["start"] and device.events() == []
    pad(buttons={3, 2})
    assert sorted(device.events()) == ["failure", "success"]
    pad.unplug()
    with pytest.raises(DeviceLost, match="unplugged"):
        device.hand()


def test_of_two_gamepads_one_must_be_chosen(pad):
    assert pad.sdl.SDL_JoystickAttachVirtual(1, 6, 15, 0) == 1
    with pytest.raises(RobotRLError, match=r"choose one, gamepad:0 \(.*\), gamepad:1"):
        open_device("gamepad", SPEC)
    assert open_device("gamepad:1", SPEC).name == "gamepad:1"
    with pytest.raises(RobotRLError, match="no gamepad:7"):
        open_device("gamepad:7", SPEC)
    pad.sdl.SDL_JoystickDetachVirtual(1)


@pytest.mark.parametrize(
    "name, words",
    [
        ("gamepad", "no gamepad was found"),
        ("spacemouse", "udev"),
        ("mouse", "no device is called 'mouse'"),
        ("gamepad:left", "no whole number"),
        ("keyboard", "need a terminal"),
        ("leader:x", "--robot"),
    ],
)
def test_a_device_that_is_not_there_is_named_with_what_to_do(name, words, monkeypatch):
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    with pytest.raises(RobotRLError, match=words):
        open_device(name, SPEC)


def test_a_hand_has_no_meaning_for_joints():
    channels = (Channel("joint_delta_0", "rad", -1, 1),)
    with pytest.raises(RobotRLError, match="joint_delta_0"):
        Person(Pressed(lambda: 0, []), Spec("w", "", (), channels, (), 20.0, 10))
    hand = np.arange(7) / 10
    np.testing.assert_allclose(action_of_hand(hand, SPEC.action), hand, atol=1e-7)


@pytest.mark.parametrize(
    "held, ready, words", [((0.3, 1), True, "ready"), ((0, 1), False, "at rest"), ((9, 9), False, "nobody held")]
)
def test_a_device_is_checked_at_rest_and_in_use(held, ready, words):
    import time

    begin = time.monotonic()
    device = Pressed(time.monotonic, [(begin + held[0], begin + held[1])])
    text, good = check_device.run(device, 0.25, tell=lambda line: None)
    assert good == ready and words in text
    device.lost = 0
    text, good = check_device.run(device, 0.1, tell=lambda line: None)
    assert not good and "unplugged" in text
