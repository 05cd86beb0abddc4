"""A policy on another device answers as before, and a device that is not there is named."""

from __future__ import annotations

import pytest
import torch

from policies import device
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.types import RobotRLError
from sim.toy import ToyEnv


def made():
    torch.manual_seed(0)
    return FlowConfig(horizon=8, backbone=MlpConfig(width=16, depth=1)).build(ToyEnv().spec).eval()


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: no GPU here")


@pytest.mark.parametrize("where", ["cpu", pytest.param("cuda", marks=GPU)])
def test_a_moved_policy_takes_and_gives_what_lies_on_the_cpu(where):
    policy, moved = made(), made()
    device.move(moved, where)
    state, noise = torch.randn(3, policy.n_obs, len(policy.spec.state)), torch.randn(3, 8, len(policy.spec.action))
    committed = torch.zeros(3, 2, len(policy.spec.action))
    for given in (None, committed):
        here, there = policy.sample({"state": state}, noise, given), moved.sample({"state": state}, noise, given)
        assert there.device.type == "cpu"
        torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved.normalise(state), policy.normalise(state))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(RobotRLError, match="'abacus'"):
        device.move(made(), "abacus")
    if not torch.cuda.is_available():
        with pytest.raises(RobotRLError, match="'cuda'"):
            device.move(made(), "cuda")
