"""Stores of one robot that differ only in what was seen train together; anything declared must still agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robot_rl import control, joint
from robot_rl.episodes import EpisodeStore
from robot_rl.types import Channel, Episode, RobotRLError, Spec


def spec_of(low: float, high: float, seen: bool = True) -> Spec:
    channel = Channel("a", "", low, high, seen=seen)
    return Spec("lerobot:pick", "so100", (channel,), (channel,), (), 10.0, 9)


def store(path: Path, spec: Spec, physical: np.ndarray) -> EpisodeStore:
    T = len(physical)
    action = np.clip(control.to_unit(physical[:, None], spec.action), -1, 1).astype(np.float32)
    obs = {"state": np.zeros((T + 1, 1), np.float32), "stamp/state": np.arange(T + 1) / 10}
    zeros = np.zeros(T, np.float32)
    with EpisodeStore.create(path, spec) as made:
        made.append(Episode(obs, action, zeros, zeros, zeros > 0, False, True))
    return EpisodeStore.open(path)


def test_two_parts_of_one_recording_ask_for_the_same_as_before(tmp_path):
    commanded = np.array([0.1, 0.5, 0.9]), np.array([0.2, 3.0, -1.0])
    parts = [
        store(tmp_path / "a", spec_of(0.1, 0.9), commanded[0]),
        store(tmp_path / "b", spec_of(-1.0, 3.0), commanded[1]),
    ]
    spec = joint.join(parts)
    assert (spec.action[0].low, spec.action[0].high, spec.action[0].seen) == (-1.0, 3.0, True)
    for part, told in zip(parts, commanded, strict=True):
        assert part.spec.action == spec.action and part.spec.state == spec.state
        assert np.allclose(control.to_physical(part[0].action, spec.action)[:, 0], told, atol=1e-6)
    parts[0].spec.require(parts[1].spec, "a", "b", any_limit=True)  # as all that reads them asks


@settings(max_examples=100, deadline=None)
@given(
    st.floats(-5, 5), st.floats(0.01, 5), st.floats(0, 3), st.floats(0, 3),
    arrays(np.float32, (4, 1), elements=st.floats(-1, 1, width=32)),
)  # fmt: skip
def test_reexpressed_actions_ask_for_the_same(low, size, below, above, action):
    was, wider = (Channel("a", "", low, low + size),), (Channel("a", "", low - below, low + size + above),)
    again = control.reexpressed(action, was, wider)
    assert np.abs(again).max() <= 1
    assert np.allclose(
        control.to_physical(again, wider), control.to_physical(action, was), atol=1e-5 * (1 + abs(low) + size)
    )


@pytest.mark.parametrize(
    "other",
    [
        spec_of(0.0, 2.0, seen=False),
        replace(spec_of(0.0, 2.0), arm="panda"),
        replace(spec_of(0.0, 2.0), rate=20.0),
        replace(spec_of(0.0, 2.0), action=(Channel("b", "", 0.0, 2.0, seen=True),)),
        replace(spec_of(0.0, 2.0), action=(Channel("a", "", 0.0, 2.0, seen=True),) * 2),
    ],
)
def test_what_was_declared_must_agree(tmp_path, other):
    first = EpisodeStore.create(tmp_path / "a", spec_of(0.0, 1.0))
    second = EpisodeStore.create(tmp_path / "b", other)
    with pytest.raises(RobotRLError, match="do not describe the same robot and task"):
        joint.join([first, second])
    with pytest.raises(RobotRLError, match="open for writing"):
        first.express(spec_of(0.0, 9.0))
