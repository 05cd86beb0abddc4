"""What a page says becomes a hand in [-1, 1] or none, whatever comes in; silence and lateness let go."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.teleop import DeviceLost
from drivers.web_hand import LATE, SILENCE, SIZE, Grip, HandMessage, parse

PUSH = (0.5, -0.25, 0.0, 0.0, 0.0, 1.0)
TICK = 0.04
QUICK = settings(max_examples=60, deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
LIKELY = st.fixed_dictionaries(
    {
        "say": st.sampled_from(["hand", "fingers", "event", "picture", "drive"]),
        "n": JSON | st.integers(0, 9), "seen": JSON | st.floats(0, 9), "held": JSON | st.booleans(),
        "motion": JSON | st.lists(st.floats() | st.floats(-1, 1), min_size=6, max_size=6),
        "closed": JSON, "event": JSON | st.sampled_from(["start", "quit", "launch"]),
    }
)  # fmt: skip


def told(number, held=True, seen=0.0, motion=PUSH):
    return HandMessage(number, seen, held, motion)


def gripped(now=0.0):
    grip = Grip(-1.0)
    grip.hear(told(0, held=False, seen=now), now)
    grip.hear(told(1, seen=now), now)
    return grip


@QUICK
@given(
    st.lists(st.binary(max_size=64) | st.text(max_size=64) | JSON.map(json.dumps) | LIKELY.map(json.dumps), max_size=9)
)
def test_whatever_comes_in_the_hand_is_none_or_within_its_bounds(raws):
    grip = Grip(-1.0)
    for i, raw in enumerate(raws):
        message = parse(raw)
        if isinstance(message, HandMessage):
            grip.hear(message, message.seen + TICK * i)
        try:
            hand = grip.hand(TICK * i)
        except DeviceLost:
            continue
        assert hand is None or (hand.shape == (7,) and np.isfinite(hand).all() and np.abs(hand).max() <= 1.0)


@QUICK
@given(LIKELY)
def test_a_hand_that_is_taken_is_the_one_that_was_said(said):
    message = parse(json.dumps(said))
    if isinstance(message, HandMessage):
        assert (message.number, message.held, list(message.motion)) == (said["n"], said["held"], said["motion"])


@pytest.mark.parametrize(
    "raw",
    [
        pickle.dumps(PUSH), b"{}", "", "[" * SIZE, "{" * 5000, "null", "[]", '{"say": "hand"}', '{"say": ["hand"]}',
        '{"say": "event", "event": "launch"}', '{"say": "event", "event": {}}', '{"say": "fingers", "closed": 1}',
        '{"say": "picture", "n": 1e3}', '{"say": "picture", "n": -1}',
    ],
)  # fmt: skip
def test_what_is_no_message_is_none(raw):
    assert parse(raw) is None


@pytest.mark.parametrize(
    "wrong", ["NaN", "Infinity", "-Infinity", "1e999", "1.0001", "-2", "9" * 400, "true", '"1"', "null"]
)
@pytest.mark.parametrize("place", ["motion", "seen"])
def test_numbers_that_are_none_or_too_large_are_refused(wrong, place):
    if place == "seen" and wrong == "1.0001":
        wrong = "1e400"
    values = {"motion": "0", "seen": "1", place: wrong}
    raw = '{"say": "hand", "n": 1, "seen": SEEN, "held": true, "motion": [0, 0, 0, 0, 0, MOTION]}'
    assert isinstance(parse(raw.replace("SEEN", "1").replace("MOTION", "0")), HandMessage)
    assert parse(raw.replace("SEEN", values["seen"]).replace("MOTION", values["motion"])) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.floats(0.0, 0.5)), max_size=30))
def test_a_hand_needs_the_dead_man_pressed_since_the_last_silence_and_heard_lately(script):
    """Against the plain definition: going back from the newest message there is a release before there is a gap."""
    grip, now, taken = Grip(-1.0), 0.0, []
    for number, held, gap in script:
        now += gap
        if grip.hear(told(number, held, now), now):
            taken.append((now, held))
    expected = False
    for i in reversed(range(len(taken))):
        moment, held = taken[i]
        if not held:
            expected = i < len(taken) - 1
            break
        if i < len(taken) - 1 and taken[i + 1][0] - moment > SILENCE:
            break
    try:
        hand = grip.hand(now)
    except DeviceLost:
        hand = None
    assert (hand is not None) == (expected and now - taken[-1][0] <= SILENCE)


def test_a_page_begins_with_the_dead_man_up():
    grip = Grip(-1.0)
    grip.hear(told(0), 0.0)
    assert grip.hand(0.0) is None and grip.must_release
    grip.hear(told(1, held=False), TICK)
    grip.hear(told(2), 2 * TICK)
    np.testing.assert_array_equal(grip.hand(2 * TICK), [*PUSH, -1.0])


def test_an_older_message_is_ignored():
    grip = gripped()
    assert not grip.hear(told(1, motion=(1.0,) * 6), TICK) and not grip.hear(told(0, held=False), TICK)
    np.testing.assert_array_equal(grip.hand(TICK), [*PUSH, -1.0])


def test_silence_while_held_is_a_lost_device_until_it_is_let_go():
    grip = gripped()
    assert grip.hand(SILENCE) is not None
    for moment in (SILENCE + 0.01, 1.0):
        with pytest.raises(DeviceLost, match="press it anew"):
            grip.hand(moment)
    grip.hear(told(2, seen=1.0), 1.0)
    with pytest.raises(DeviceLost):
        grip.hand(1.0)
    grip.hear(told(3, held=False, seen=1.0), 1.0)
    assert grip.hand(1.0) is None
    grip.hear(told(4, seen=1.0), 1.0)
    assert grip.hand(1.0) is not None


def test_a_gap_that_nobody_looked_into_lets_go_all_the_same():
    grip = gripped()
    grip.hear(told(2, seen=0.3), 0.3)
    with pytest.raises(DeviceLost):
        grip.hand(0.3)


def test_silence_with_the_dead_man_up_is_nothing():
    grip = Grip(-1.0)
    grip.hear(told(0, held=False), 0.0)
    assert grip.hand(60.0) is None


@pytest.mark.parametrize("age", [LATE + 0.01, -0.01])
def test_messages_that_were_long_on_their_way_let_go(age):
    grip = gripped()
    grip.hear(told(2, seen=0.1 - age), 0.1)
    with pytest.raises(DeviceLost, match="late"):
        grip.hand(0.1)
    grip.hear(told(3, held=False, seen=0.15 - age), 0.15)
    grip.hear(told(4, seen=0.2 - age), 0.2)
    with pytest.raises(DeviceLost, match="late"):
        grip.hand(0.2)


def test_fingers_need_the_dead_man_and_go_on_from_where_they_are():
    grip = Grip(-1.0)
    grip.set_fingers(True)
    assert grip.closed == -1.0
    grip.follow(0.3)
    grip.hear(told(0, held=False), 0.0)
    grip.hear(told(1), 0.0)
    grip.follow(-1.0)
    assert grip.hand(0.0)[-1] == 1.0, "who holds it says how the fingers are"
    grip.set_fingers(False)
    assert grip.hand(0.0)[-1] == -1.0
