"""One contract for every device of a person: silence, senseless reports and a start in mid-motion never move anything.

Each device is fed by a rig under a fake clock. What a rig says is rest (all there is, dead-man up), a push (dead-man
held, full motion) or garbage; what is not said is silence.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers import keyboard, spacemouse
from drivers.dead_man import QUIET, DeadMan
from drivers.devices import open_controls, open_device
from drivers.message_hands import NEAR, JoyHand, LeaderHand, TwistHand
from drivers.teleop import DeviceLost, DeviceSilent
from drivers.web_hand import Grip, HandMessage
from robot_rl.types import RobotRLError
from tests.lockstep import ROBOT
from tests.test_teleop import Typing, pad  # noqa: F401

LET_GO = 0.3  # the law: so long after the last report nothing moves [s]
LOOK = 0.02  # between two looks of the loop [s]
nan, inf = float("nan"), float("inf")
SIDEWAYS = np.array([1.0, 0, 0, 0])


class JoyRig:
    """Xbox-like, triggers at rest at 1."""

    axes, buttons = [0.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0] * 8
    bad = (
        ([0, nan, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0, 0]), ([0, inf, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0, 0]),
        ([0, 90, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0, 0]), ([0, 1, 1], [0, 0, 0, 0, 0, 1, 0, 0]), ([], []),
        ([0, 1, 1, 0, 0, 1], [1, 1]), ([0, 1, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0]),
        ([0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 9, 0, 0]),
    )  # fmt: skip

    def __init__(self):
        self.now, self.device = 100.0, JoyHand("joy", 5, 1.0)

    def rest(self):
        self.device.hear(self.now, self.axes, self.buttons)

    def push(self):
        self.device.hear(self.now, [0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0, 0])

    def garbage(self, i):
        self.device.hear(self.now, *self.bad[i % len(self.bad)])

    def hand(self):
        return self.device.hand(self.now)


class TwistRig:
    largest = np.array([1.0, 1, 1, 9, 9, 9])
    bad = (("base", [nan, 0]), ("base", [0, inf]), ("base", [100.0, 0]), ("base", [1e300, 0]), ("tool", [0.5, 0]))

    def __init__(self):
        self.now, self.device = 100.0, TwistHand("twist", self.largest, "base")

    def rest(self):
        self.device.hear(self.now, "base", np.zeros(6))

    def push(self):
        self.device.hear(self.now, "", np.array([0.5, 0, 0, 0, 0, 0]))

    def garbage(self, i):
        frame, (x, y) = self.bad[i % len(self.bad)]
        self.device.hear(self.now, frame, np.array([x, y, 0, 0, 0, 0]))

    def hand(self):
        return self.device.hand(self.now)


class LeaderRig:
    """The leader trembles within 3 cm of the arm; garbage is a joint that is missing, or a jump."""

    def __init__(self):
        self.now, self.device = 100.0, LeaderHand("leader", np.full(6, 0.05))
        self.count = itertools.count()

    def say(self, at, down):
        joints = np.array([next(self.count) * 1e-6])
        self.device.hear(self.now, joints, np.array([at, 0, 0]), SIDEWAYS)
        self.device.hear_pedal(self.now, down)

    def rest(self):
        self.say(0.02, False)

    def push(self):
        self.say(0.03, True)

    def garbage(self, i):
        if i % 2:
            self.device.dead_man.doubt("a joint is missing")
        else:
            self.device.hear(self.now, np.zeros(1), np.array([99.0 + self.now, 0, 0]), SIDEWAYS)
            self.device.hear(self.now, np.zeros(1), np.array([0.03, 0, 0]), SIDEWAYS)

    def hand(self):
        return self.device.hand(self.now, np.zeros(3), SIDEWAYS)


class Mouse:
    """pyspacemouse's device: reports wait in the kernel, and the last one stays."""

    def __init__(self):
        self.waiting, self.state = [], self.report(-1.0)

    @staticmethod
    def report(t, x=0.0, button=0, roll=0.0):
        return SimpleNamespace(t=t, x=x, y=0.0, z=0.0, roll=roll, pitch=0.0, yaw=0.0, buttons=[button, 0])

    def read(self):
        if self.waiting:
            self.state = self.waiting.pop(0)
        return self.state


class SpaceMouseRig:
    def __init__(self, monkeypatch):
        self.now, self.mouse, self.count = 100.0, Mouse(), itertools.count()
        monkeypatch.setattr(spacemouse, "_open", lambda index: self.mouse)
        self.device = spacemouse.SpaceMouse(None, lambda: self.now)

    def say(self, *values):
        self.mouse.waiting.append(Mouse.report(next(self.count), *values))

    def rest(self):
        self.say()
        self.say()

    def push(self):
        self.say(1.0)

    def garbage(self, i):
        self.say((nan, inf, -inf, 93.0)[i % 4])

    def hand(self):
        return self.device.hand()


class KeyboardRig:
    """A key is a push; there is no rest to see, and no garbage that looks like a key."""

    def __init__(self):
        self.now, self.typing = 100.0, Typing()
        self.device = keyboard.Keyboard(self.typing, lambda: self.now)

    def rest(self):
        pass

    def push(self):
        self.typing.keys.append("w")

    def garbage(self, i):
        self.typing.keys.append(("\x1b[Z", "\x00", "é", "W")[i % 4])

    def hand(self):
        return self.device.hand()


class WebRig:
    def __init__(self):
        self.now, self.device, self.count = 100.0, Grip(-1.0), itertools.count()

    def say(self, held):
        self.device.hear(HandMessage(next(self.count), self.now, held, (1.0, 0, 0, 0, 0, 0)), self.now)

    def rest(self):
        self.say(False)

    def push(self):
        self.say(True)

    def garbage(self, i):  # what is no message is told apart in test_web_hand; late and early ones are left
        late = self.now - (9.0 if i % 2 else -9.0)
        self.device.hear(HandMessage(next(self.count), late, True, (1.0, 0, 0, 0, 0, 0)), self.now)

    def hand(self):
        return self.device.hand(self.now)


RIGS = {
    "joy": JoyRig, "twist": TwistRig, "leader": LeaderRig, "spacemouse": SpaceMouseRig, "keyboard": KeyboardRig,
    "web": WebRig,
}  # fmt: skip


@pytest.fixture(params=RIGS)
def new_rig(request, monkeypatch):
    """Makes the device that the test is about, anew at each call."""
    kind = RIGS[request.param]
    return (lambda: kind(monkeypatch)) if kind is SpaceMouseRig else kind


def moves(rig):
    """The device asks for a motion now."""
    try:
        hand = rig.hand()
    except DeviceLost:
        return False
    if hand is None:
        return False
    assert hand.shape == (7,) and np.isfinite(hand).all() and np.abs(hand).max() <= 1.0
    return bool(hand[:6].any())


def elapse(rig, seconds, look=True):
    """Time goes by, looked at or not; how long after its beginning the last motion was asked for [s]."""
    begin, last = rig.now, -1.0
    while rig.now < begin + seconds - 1e-9:
        rig.now = min(rig.now + LOOK, begin + seconds)
        if look and moves(rig):
            last = rig.now - begin
    return last


# ---- laws of all devices

EVENTS = st.tuples(
    st.sampled_from(["rest", "push", "push", "push", "garbage", "nothing"]),
    st.integers(0, 9),
    st.one_of(st.floats(0.0, 0.2), st.floats(0.2, 1.5)),
    st.booleans(),
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_fault_f37_nothing_moves_but_a_hand_that_was_seen_up_and_was_heard_lately(new_rig, data):
    """Against the plain definition, over streams of reports with gaps, garbage, and times when nobody looks."""
    rig, heard, armed, last = new_rig(), -inf, needs_no_release(new_rig), ""
    for what, i, gap, looked in data.draw(st.lists(EVENTS, max_size=14)):
        if what != "nothing" and not (what == "rest" and new_rig is KeyboardRig):
            if last == "push" and rig.now - heard > LET_GO:
                armed = needs_no_release(new_rig)
            if what == "rest":
                armed = True
            elif what == "garbage":
                armed = needs_no_release(new_rig)
                rig.garbage(i)
            if what != "garbage":
                heard, last = rig.now, what
                getattr(rig, what)()
        begin = rig.now
        while rig.now < begin + gap:
            if (looked or rig.now + LOOK >= begin + gap) and moves(rig):
                assert last == "push" and armed, "it was not let go since it began, was senseless or fell silent"
                assert rig.now - heard <= LET_GO + 1e-9, f"{rig.now - heard:.2f} s after the last report"
            rig.now += LOOK


def needs_no_release(kind):
    """A key that comes is pressed just then: it needs no release before."""
    return kind is KeyboardRig


def settle(rig):
    """The device is there, nobody touches it."""
    for _ in range(3):
        rig.rest()
        elapse(rig, 0.05)


def test_fault_f37_a_hand_that_reports_moves_all_the_time(new_rig):
    """Else the laws above were kept by moving nothing."""
    rig = new_rig()
    settle(rig)
    for _ in range(40):
        rig.push()
        assert moves(rig)
        elapse(rig, 0.05)
        assert moves(rig)


def test_fault_f37_silence_lets_go_in_time_and_for_good(new_rig, request):
    rig = new_rig()
    settle(rig)
    rig.push()
    assert moves(rig)
    took = elapse(rig, 2.0)
    print(f"{request.node.callspec.params['new_rig']}: moved for {1000 * took:.0f} ms after its last report")
    assert 0.1 < took <= LET_GO + 1e-9
    if isinstance(rig, KeyboardRig):
        return
    moves_only_once_it_was_let_go(rig, reports=20)  # it comes back as it was


def moves_only_once_it_was_let_go(rig, reports):
    for _ in range(reports):
        rig.push()
        assert elapse(rig, 0.05) < 0
    settle(rig)
    rig.push()
    assert moves(rig)


def test_fault_f37_reports_that_waited_while_nobody_looked_are_no_news(monkeypatch):
    """They wait in the kernel without a time: 0.32 s after the last one nothing moves, however late it was read."""
    rig = SpaceMouseRig(monkeypatch)
    settle(rig)
    rig.push()
    assert moves(rig)
    rig.now += LOOK
    rig.push()
    for wait in (0.2, 0.12):
        rig.now += wait
        moved = moves(rig)
    assert not moved


def test_fault_f37_a_device_that_begins_with_its_dead_man_down_moves_nothing(new_rig):
    rig = new_rig()
    if isinstance(rig, KeyboardRig):
        return
    moves_only_once_it_was_let_go(rig, reports=40)


def test_fault_f37_garbage_in_the_hand_lets_go_until_it_was_let_go(new_rig):
    if new_rig is KeyboardRig:
        return
    for i in range(10):
        rig = new_rig()
        settle(rig)
        rig.push()
        assert moves(rig)
        rig.garbage(i)
        assert not moves(rig)
        moves_only_once_it_was_let_go(rig, reports=5)


@pytest.mark.parametrize("kind", ["joy", "twist", "leader", "spacemouse", "web"])
def test_fault_f37_silence_in_the_hand_holds_the_arm_and_is_told(kind, monkeypatch):
    """A policy does not go on by itself: that is `DeviceSilent`, and not a dead-man that is up."""
    rig = RIGS[kind](monkeypatch) if kind == "spacemouse" else RIGS[kind]()
    settle(rig)
    rig.push()
    rig.hand()
    elapse(rig, LET_GO)
    with pytest.raises(DeviceSilent, match="let go"):
        rig.hand()
    elapse(rig, 5)
    with pytest.raises(DeviceSilent):
        rig.hand()
    settle(rig)
    assert rig.hand() is None


# ---- rest values


@pytest.mark.parametrize(
    "rest, reads, pulled", [(1.0, 0.0, -1.0), (1.0, -1.0, -0.5), (-1.0, 0.0, 1.0), (0.0, 1.0, 1.0)]
)
def test_fault_f37_a_trigger_must_be_seen_at_rest_before_anything_moves(rest, reads, pulled):
    """Drivers say 0 of an axis until it is touched, or 1 where that is its end."""
    hand, now = JoyHand("joy", 4, rest), 0.0

    def say(lower, lift, held, stick=0.0):
        nonlocal now
        now += 0.05
        hand.hear(now, [0, stick, lower, 0, 0, lift], [0, 0, 0, 0, held])
        return hand.hand(now)

    for held in (0, 1, 1, 0, 1):
        assert say(reads, rest, held, stick=1.0) is None
    assert "left trigger, axis 2" in hand.dead_man.hint and f"at rest it is {rest:g}" in hand.dead_man.hint
    assert say(rest, rest, 1) is None, "it was touched, with the dead-man held"
    assert say(rest, rest, 0) is None
    assert not say(rest, rest, 1)[:6].any(), "nothing is pulled"
    assert say(rest, pulled, 1)[2] > 0 > say(pulled, rest, 1)[2]
    assert say(pulled, pulled, 1)[2] == 0


def test_fault_f37_a_restarted_driver_whose_triggers_read_0_moves_nothing():
    hand = JoyHand("joy", 4, 1.0)
    for i in range(4):
        hand.hear(0.05 * i, [0, 0, 1, 0, 0, 1], [0] * 5)
    hand.hear(0.2, [0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1])
    assert hand.hand(0.2)[0] == 1
    for i in range(20):  # a second later it is back; the left trigger was touched, the right one was not
        hand.hear(1.2 + 0.05 * i, [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, int(i > 9)])
        if i > 0:
            assert hand.hand(1.2 + 0.05 * i) is None


@pytest.mark.filterwarnings("ignore")
def test_fault_f37_a_gamepad_whose_triggers_read_half_until_touched_moves_nothing(pad):  # noqa: F811
    device = open_device("gamepad", ROBOT.spec())
    for axes in ({4: 0, 5: 0}, {4: 0}, {5: 0}, {4: 0, 5: -32768}):
        for buttons in ((), (10,), (10,), ()):
            pad(axes=axes, buttons=buttons)
            assert device.hand() is None
    assert "the left trigger is not at rest" in device.hint
    pad(buttons={10})
    assert device.hand() is None, "the dead-man was never seen up with all at rest"
    pad()
    assert device.hand() is None and not device.hint
    pad(axes={5: 32767}, buttons={10})
    assert device.hand()[2] == pytest.approx(1.0, abs=0.01)


def test_fault_f37_what_is_down_at_first_was_not_pressed(pad):  # noqa: F811
    pad(buttons={0, 6, 3})
    device = open_device("gamepad", ROBOT.spec())
    pad(buttons={0, 6, 3})
    assert device.events() == [] and device._grip.closed == -1
    hand = JoyHand("joy", 5, 1.0)
    hand.hear(0.0, JoyRig.axes, [1, 0, 0, 1, 0, 0, 0, 1])
    hand.hear(0.1, JoyRig.axes, [1, 0, 0, 1, 0, 0, 0, 1])
    assert hand.events == [] and hand.grip.closed == -1
    hand.hear(0.2, JoyRig.axes, [0] * 8)
    hand.hear(0.3, JoyRig.axes, [1, 0, 0, 0, 0, 0, 0, 1])
    assert hand.events == ["start"] and hand.grip.closed == 1
    hand.hear(9.0, JoyRig.axes, [1, 0, 0, 1, 0, 0, 0, 1])  # after a silence nobody knows
    hand.hear(9.1, [nan] * 6, [1, 0, 1, 1, 0, 0, 0, 1])
    assert hand.events == ["start"]


# ---- what each device has of its own


def test_fault_f37_a_gamepad_that_hangs_with_its_stick_pushed_lets_go(pad, monkeypatch):  # noqa: F811
    """Out of the radio's reach: the system says for long that it is attached."""
    device, now = open_device("gamepad", ROBOT.spec()), [0.0]
    monkeypatch.setattr(device, "_now", lambda: now[0])
    pad()
    device.hand()
    pad(axes={1: -32767}, buttons={10})
    while now[0] < 1.9:
        assert device.hand()[0] > 0.9
        now[0] += 0.05
    now[0] += 0.2
    with pytest.raises(DeviceSilent, match="tells the same"):
        device.hand()
    pad(axes={1: -32766}, buttons={10})
    with pytest.raises(DeviceSilent):
        device.hand()
    pad()
    assert device.hand() is None
    pad(buttons={10})  # held with nothing to do it may be for ever
    for _ in range(200):
        now[0] += 0.05
        assert device.hand() is not None


@pytest.mark.parametrize("still", [True, False])
def test_fault_f37_a_leader_that_is_not_read_any_more_is_not_followed(still):
    """The same joints for ever, with new stamps; a hand that leads trembles."""
    hand, now, arm = LeaderHand("leader", np.full(6, 0.05)), 0.0, np.zeros(3)
    hand.hear(now, np.zeros(1), np.zeros(3), SIDEWAYS)
    hand.hear_pedal(now, False)
    moved = []
    for i in range(60):
        now += 0.05
        at = min(0.04 * i, 0.6)  # it leads fast, and stops 0.6 m away
        joints = np.array([at]) if still else np.array([at + 1e-6 * i])
        hand.hear(now, joints, np.array([at, 0, 0]), SIDEWAYS)
        hand.hear_pedal(now, True)
        try:
            wanted = hand.hand(now, arm, SIDEWAYS)
        except DeviceSilent:
            wanted = None
        if wanted is not None:
            arm = arm + [0.01 * wanted[0], 0, 0]
            moved.append(now)
    stopped = 0.05 * 16
    if still:
        assert moved[-1] - stopped <= 0.55 and arm[0] < 0.35
    else:
        assert moved[-1] == now


def test_fault_f37_a_leader_that_jumps_is_not_followed():
    rig = LeaderRig()
    settle(rig)
    rig.push()
    assert moves(rig)
    rig.now += 0.05
    rig.say(NEAR + 0.3, True)
    assert not moves(rig)
    rig.say(0.03, True)
    assert not moves(rig)


def test_fault_f37_reports_that_waited_in_the_kernel_are_not_new(monkeypatch):
    rig = SpaceMouseRig(monkeypatch)
    settle(rig)
    for _ in range(60):
        rig.push()
        rig.now += 0.01
    assert not moves(rig)
    rig.rest()
    assert elapse(rig, 0.05) < 0
    rig.push()
    assert moves(rig)


def test_fault_f37_a_cap_of_which_only_the_half_was_said_moves_nothing(monkeypatch):
    """Some models say the translation, and then the rotation."""
    rig = SpaceMouseRig(monkeypatch)
    rig.say()  # the translation, of a cap that is twisted
    assert not moves(rig)
    for _ in range(10):
        rig.say(0.0, 0, 1.0)
        assert elapse(rig, 0.02) < 0
    rig.say()  # it is let go: once, and then nothing
    assert elapse(rig, 0.4) < 0
    rig.say(0.0, 0, 1.0)
    assert moves(rig)


def test_a_spacemouse_button_works_the_fingers_and_moves_nothing(monkeypatch):
    rig = SpaceMouseRig(monkeypatch)
    settle(rig)
    rig.say(0.0, 1)
    hand = rig.hand()
    assert not hand[:6].any() and hand[6] == 1
    elapse(rig, 1.0)
    assert rig.hand() is None, "a button that is kept down is silence, not a hand"


def test_fault_f37_keys_that_waited_while_nobody_looked_move_nothing():
    rig = KeyboardRig()
    rig.hand()
    rig.push()
    rig.now += 1.0
    assert not moves(rig)
    rig.push()
    assert moves(rig)


def test_a_dead_man_that_does_not_count_says_why():
    dead = DeadMan("pad", speaks_at_rest=False)
    dead.report(0.0, True, np.zeros(6))
    assert "pad was not yet seen with the dead-man up: let go" in dead.hint
    dead.report(0.1, False, np.zeros(6))
    assert not dead.hint
    dead.report(0.2, True, np.full(6, 1.5))
    assert "beyond 1" in dead.hint and dead.motion(0.2) is None
    dead.report(0.3, False, np.zeros(6), "the trigger is not at rest")
    assert dead.hint == "the trigger is not at rest"
    assert dead.motion(0.3 + QUIET) is None


@pytest.mark.parametrize("stdin", [None, "closed"])
def test_a_keyboard_without_standard_input_is_refused_and_not_a_traceback(stdin, monkeypatch, tmp_path):
    file = (tmp_path / "in").open("w")
    file.close()
    monkeypatch.setattr("sys.stdin", None if stdin is None else file)
    with pytest.raises(RobotRLError, match="need a terminal"):
        open_device("keyboard", ROBOT.spec())
    with pytest.raises(RobotRLError, match="no gamepad|pygame"):
        open_controls("gamepad", ROBOT.spec())


@pytest.mark.parametrize("name", ["joy:t,x", "joy:t,5,2", "joy:t,5,nan", "joy:t,5,1,1", "joy:t,-1"])
def test_a_joystick_that_is_declared_wrongly_is_refused(name):
    with pytest.raises(RobotRLError, match="whole number|REST"):
        open_device(name, ROBOT.spec())
