"""What plays on a robot, without ROS: an arm under a fake clock. Over DDS: tests/ros/test_deploy.py."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl import deploy
from robot_rl.agents.rlpd import RlpdConfig
from robot_rl.episodes import EpisodeStore
from robot_rl.realtime import RealtimeConfig
from tests.lockstep import ROBOT, Bench


def test_an_agent_of_single_actions_is_asked_at_each_tick(tmp_path, capsys):
    spec = ROBOT.spec()
    policy = FlowConfig(horizon=8, backbone=MlpConfig(width=16, depth=1)).build(spec)
    policy.fit(torch.rand(50, len(spec.state)).numpy(), torch.rand(50, len(spec.action)).numpy())
    agent = RlpdConfig(warm_start=False, width=16).build(policy)
    plan = deploy.Plan(Path("agent.pt"), RealtimeConfig(), 2, 0, None, tmp_path / "store")
    play = deploy.load(plan, spec, lambda path, execute: agent)
    for _ in range(2):  # a lifecycle manager may activate it again
        play(Bench().env(), lambda: False)
    episodes = list(EpisodeStore.open(tmp_path / "store"))
    assert [len(episode) for episode in episodes] == [ROBOT.max_steps] * 4
    assert not any(episode.meta["aborted"] for episode in episodes)
    assert re.search(rf"0 of {2 * ROBOT.max_steps} ticks late", capsys.readouterr().out)
