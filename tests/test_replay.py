from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl.replay import Replay, Table
from robot_rl.types import Episode, RobotRLError

GAMMA = 0.9


def chain(T, *, success, offset=0):
    """States count up; the reward is 1 at a success; extras are -state."""
    state = np.arange(offset, offset + T + 1, dtype=np.float32)[:, None]
    reward = np.zeros(T, np.float32)
    reward[-1] = success
    flags = np.zeros(T, bool)
    return Episode(
        {"state": state}, state[:-1] / 1000, reward, reward, flags, success, not success, {"base_action": -state}
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=6), st.integers(1, 6))
def test_every_transition_is_the_closed_form(episodes, n):
    table, truth, offset = Table(), {}, 0
    for T, success in episodes:
        table.add(chain(T, success=success, offset=offset))
        for t in range(T):
            m = min(n, T - t)
            reward = GAMMA ** (T - 1 - t) if success and t + m == T else 0.0
            discount = 0.0 if success and t + m == T else GAMMA**m
            truth[offset + t] = (offset + t + m, reward, discount)
        offset += T + 1
    assert len(table) == len(truth)
    batch = table.sample(400, n, GAMMA, torch.Generator().manual_seed(0))
    for i in range(400):
        now = int(batch["state"][i])
        then, reward, discount = truth[now]
        assert int(batch["next/state"][i]) == then
        assert batch["extra/base_action"][i] == -now and batch["next/extra/base_action"][i] == -then
        assert batch["reward"][i] == pytest.approx(reward) and batch["discount"][i] == pytest.approx(discount)
        assert batch["action"][i] == pytest.approx(now / 1000)


def test_sampling_is_uniform_over_transitions_and_reproducible():
    table = Table()
    for i in range(3):
        table.add(chain(5 + i, success=bool(i % 2), offset=100 * i))
    draws = table.sample(18_000, 1, GAMMA, torch.Generator().manual_seed(3))["state"]
    counts = torch.unique(draws, return_counts=True)[1]
    assert len(counts) == 18 and counts.min() > 850 and counts.max() < 1150
    assert torch.equal(draws, table.sample(18_000, 1, GAMMA, torch.Generator().manual_seed(3))["state"])


def test_half_of_a_batch_is_demonstrations():
    replay = Replay()
    replay.demos.add(chain(5, success=True))
    replay.online.add(chain(5, success=False, offset=100))
    batch = replay.sample(64, 0.5, 1, GAMMA, torch.Generator())
    assert (batch["state"] < 50).sum() == 32
    assert (replay.sample(64, 0.0, 1, GAMMA, torch.Generator())["state"] > 50).all()


def test_growth_keeps_what_was_there():
    table = Table()
    for i in range(40):
        table.add(chain(200, success=True, offset=1000 * i))
    states = table.sample(20_000, 1, GAMMA, torch.Generator().manual_seed(0))["state"]
    assert (states % 1000 < 200).all() and len(torch.unique(states)) > 7000


def test_empty_and_unlike_episodes_are_refused():
    with pytest.raises(RobotRLError, match="empty"):
        Table().sample(4, 1, GAMMA, torch.Generator())
    table = Table()
    table.add(chain(3, success=True))
    other = chain(3, success=True)
    other.extras = {}
    with pytest.raises(RobotRLError, match="must agree"):
        table.add(other)


def test_images_are_kept_where_asked_for_and_stay_bytes():
    episode = chain(9, success=True)
    episode.obs["image/eye"] = np.arange(10, dtype=np.uint8).repeat(12).reshape(10, 2, 2, 3)
    without, table = Table(), Table(images=True)
    for t in (without, table):
        t.add(episode)
        t.add(episode)
    assert not any("image" in key for key in without.sample(2, 1, GAMMA, torch.Generator()))
    batch = table.sample(64, 3, GAMMA, torch.Generator().manual_seed(0))
    assert batch["image/eye"].dtype == torch.uint8 and batch["image/eye"].shape == (64, 2, 2, 3)
    assert torch.equal(batch["image/eye"][:, 0, 0, 0].float(), batch["state"][:, 0])
    assert torch.equal(batch["next/image/eye"][:, 1, 1, 2].float(), batch["next/state"][:, 0])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=4), st.integers(1, 6), st.integers(1, 4)
)
def test_a_chunk_is_what_was_executed_and_histories_stay_in_their_episode(episodes, h, To):
    table, ends, offset = Table(), {}, 0
    for T, success in episodes:
        table.add(chain(T, success=success, offset=offset))
        ends |= {offset + t: (offset, offset + T) for t in range(T)}
        offset += T + 1
    batch = table.sample(200, h, GAMMA, torch.Generator().manual_seed(0), history=To)
    assert batch["chunk"].shape == (200, h, 1) and batch["history"].shape == batch["next/history"].shape == (200, To, 1)
    for i in range(200):
        now, then = int(batch["state"][i]), int(batch["next/state"][i])
        begin, end = ends[now]
        assert batch["history"][i, :, 0].tolist() == [max(now + k, begin) for k in range(1 - To, 1)]
        assert batch["next/history"][i, :, 0].tolist() == [max(then + k, begin) for k in range(1 - To, 1)]
        expected = [min(now + k, end - 1) / 1000 for k in range(h)]
        np.testing.assert_allclose(batch["chunk"][i, :, 0], expected, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 6))
def test_no_transition_spans_a_change_of_hands_and_each_kind_is_what_it_says(hands, n):
    table, truth, offset = Table(), {}, 0
    for k, intervened in enumerate(hands):
        T, success = len(intervened), bool(k % 2)
        episode = chain(T, success=success, offset=offset)
        episode.intervened = np.array(intervened)
        table.add(episode)
        for t in range(T):
            end = next((u for u in range(t, T) if intervened[u] != intervened[t]), T)
            own = success and not any(intervened[t:])
            truth[offset + t] = (min(t + n, end) - t, intervened[t], own, success, offset, offset + T)
        offset += T + 1
    for kind, column in (("all", None), ("human", 1), ("success", 2)):
        chosen = {row for row, value in truth.items() if column is None or value[column]}
        assert table.count(kind) == len(chosen)
        if not chosen:
            with pytest.raises(RobotRLError, match="empty"):
                table.sample(4, n, GAMMA, torch.Generator(), kind=kind)
            continue
        batch = table.sample(200, n, GAMMA, torch.Generator().manual_seed(0), kind=kind)
        windows = table.windows(200, 1, 3, torch.Generator().manual_seed(0), kind)
        for i, now in enumerate(batch["state"][:, 0].long().tolist()):
            m, _, _, success, first, last = truth[now]
            assert now in chosen and int(batch["next/state"][i]) == now + m
            over = success and now + m == last
            assert batch["discount"][i] == pytest.approx(0.0 if over else GAMMA**m)
            assert windows["state"][i, :, 0].tolist() == [max(now + k, first) for k in (-2, -1, 0)]
            assert windows["action"][i, 0, 0] == pytest.approx(now / 1000)
    worth = [row for row in sorted(truth) if truth[row][1] or truth[row][2]]
    shown = table.worth_imitating(4, 1)["action"]
    assert len(shown) == len(worth)
    for i, now in enumerate(worth):
        end = next((row for row in range(now, truth[now][-1]) if truth[row][1] != truth[now][1]), truth[now][-1])
        np.testing.assert_allclose(shown[i, :, 0], [min(now + k, end - 1) / 1000 for k in range(4)], rtol=1e-5)


def test_a_humans_windows_hold_the_humans_actions_alone():
    table, episode = Table(), chain(20, success=False)
    episode.intervened[[2, 3, 4, 5, 11]] = True
    table.add(episode)
    windows = table.windows(300, 6, 1, torch.Generator().manual_seed(0), "human")
    assert set(windows["state"][:, 0, 0].tolist()) == {2, 3, 4, 5, 11}
    np.testing.assert_allclose(np.unique(windows["action"] * 1000), [2, 3, 4, 5, 11], rtol=1e-5)


def test_a_store_of_practice_beside_demonstrations_is_imitated_where_it_is_worth_it():
    replay, random = Replay(), torch.Generator().manual_seed(0)
    failed, helped = chain(9, success=False), chain(9, success=True, offset=100)
    for episode in (failed, helped):
        episode.intervened[3:6] = True
        replay.demos.add(episode)
    seen = replay.imitation(500, 2, 1, random)["state"][:, 0, 0]
    assert set(seen.tolist()) == {3, 4, 5, 103, 104, 105, 106, 107, 108}


def test_what_is_imitated_is_drawn_by_its_weight_and_no_failed_step_or_one_before_help_is_the_agents():
    replay, random = Replay(), torch.Generator().manual_seed(0)
    replay.demos.add(chain(5, success=True))
    only_demos = replay.imitation(40, 2, 1, random, human_weight=9.0)
    assert len(only_demos["action"]) == 40 and (only_demos["state"] < 50).all()
    failed, helped, won = (chain(9, success=bool(i), offset=100 * i + 100) for i in range(3))
    for episode in (failed, helped):
        episode.intervened[3:6] = True
    for episode in (failed, helped, won):
        replay.remember(episode)
    assert len(replay.demos) == 5 + 6 and replay.online.count("human") == 6
    assert replay.online.count("success") == 9 + 3, "of a helped one only what came after the help"
    state = replay.imitation(3000, 2, 1, random, success_weight=1.0, human_weight=4.0)["state"][:, 0, 0]
    human = ((state % 100 >= 3) & (state % 100 < 6) & (state >= 100) & (state < 300)).sum()
    own = (state >= 300) | ((state >= 206) & (state < 209))
    total = 5 + 12 + 4 * 6
    assert abs(own.sum() - 3000 * 12 / total) <= 1 and abs(human - 3000 * 4 * 6 / total) <= 3
    assert (state < 50).sum() + human + own.sum() == 3000
    assert (replay.imitation(500, 2, 1, random, success_weight=0.0)["state"] % 100 < 6).all()
    alone = replay.imitation(500, 2, 1, random, success_weight=0.0, human_weight=0.0)["state"]
    assert (alone < 50).all(), "a weight of 0 is none at all"
    with pytest.raises(RobotRLError, match="empty of steps of the kind 'success'"):
        Replay().imitation(4, 2, 1, random)


def test_a_replay_too_small_for_the_n_step_is_named():
    replay = Replay()
    replay.demos.add(chain(5, success=True))
    replay.online.add(chain(7, success=True))
    with pytest.raises(RobotRLError, match="transitions of 8 steps: its longest episode has 7"):
        replay.sample(4, 0.5, 8, GAMMA, torch.Generator())
