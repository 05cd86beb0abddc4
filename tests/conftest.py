from __future__ import annotations

import atexit
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from drivers import interrupts
from policies import checkpoint
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl.collect import collect
from robot_rl.pretrain import PretrainConfig, pretrain
from sim.robosuite_env import RobosuiteConfig
from sim.toy import ToyEnv, ToyOperator

os.environ.setdefault("MUJOCO_GL", "egl")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def signals_as_before():
    """A main that runs in the process of the tests leaves no handler behind, and no signal that it remembers."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        if handler is not None:  # one that is not Python's cannot be set again
            signal.signal(number, handler)
    interrupts._received.clear()
    atexit.unregister(interrupts._ignore)


TINY = FlowConfig(horizon=8, backbone=MlpConfig(width=64, depth=2))


@pytest.fixture(scope="session")
def toy_demos(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "demos"
    return collect(out, ToyEnv().spec, ToyEnv, partial(ToyOperator, 0.3), episodes=60)


@pytest.fixture(scope="session")
def toy_policy(tmp_path_factory, toy_demos) -> Path:
    """A flow policy that solves about half of the toy world."""
    config = PretrainConfig(steps=600, warmup=50, batch=64, save_every=200)
    return pretrain(tmp_path_factory.mktemp("toy") / "base", toy_demos, TINY, config, checkpoint.save)


@pytest.fixture(scope="session")
def lift_policy(tmp_path_factory) -> Path:
    """One that knows nothing, of the world Lift: it moves the arm a little."""
    torch.manual_seed(0)
    env = RobosuiteConfig("Lift", max_steps=40).build()
    made = FlowConfig(horizon=16, backbone=MlpConfig(width=32, depth=1)).build(env.spec)
    states = torch.from_numpy(env.reset(0)["state"]).repeat(50, 1)
    made.fit((states + 0.05 * torch.randn(states.shape)).numpy(), torch.rand(50, 7).numpy() * 0.2 - 0.1)
    env.close()
    file = tmp_path_factory.mktemp("lift") / "policy.pt"
    checkpoint.save(made, file)
    return file
