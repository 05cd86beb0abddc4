"""Agents on disk: one file holds the config, the base policy and what was learned on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from policies import checkpoint as policy_file
from robot_rl import configs, fitting, sealed
from robot_rl.agents.corrections import Corrections, CorrectionsConfig
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.expo import ExpoConfig
from robot_rl.agents.frozen import Frozen, FrozenConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.agents.rlpd import RlpdConfig
from robot_rl.agents.taco import TacoConfig
from robot_rl.types import RobotRLError

KNOWN = (FrozenConfig, ResidualConfig, DsrlConfig, RlpdConfig, CorrectionsConfig, ExpoConfig, TacoConfig)
FORMAT = 1


def save_agent(agent: Any, path: Path) -> None:
    """Write an agent, base policy included, atomically."""
    data = {
        "robot_rl_agent": FORMAT,
        "config": configs.to_data(agent.config),
        "policy": policy_file.to_data(agent.policy),
        "learned": agent.state_dict(),
    }
    sealed.write(data, Path(path))


def load_agent(path: Path, execute: int | None = None) -> Any:
    """The agent in a file or in a run's folder: the promoted one, where there is one.

    A bare policy is played frozen, `execute` actions of each chunk.
    """
    path = file_of(Path(path))
    data = sealed.read(path)
    if "robot_rl_policy" in data:
        policy = policy_file.from_data(data, str(path))
        steps = min(FrozenConfig.execute, policy.horizon) if execute is None else execute
        return FrozenConfig(steps).build(policy)
    if not fitting.is_format(data, "robot_rl_agent", FORMAT):
        raise RobotRLError(f"{path} is neither a policy nor an agent of robot-rl; `pretrain` and `refine` make them")
    if execute is not None:
        raise RobotRLError(
            f"{path} is a refined agent: it fixes how many actions of a chunk it executes; drop --execute"
        )
    fitting.require_parts(data, ("policy", "config", "learned"), str(path))
    policy = policy_file.from_data(data["policy"], str(path))
    shape = _without_memory(policy)
    agent = fitting.built(
        data["config"],
        KNOWN,
        lambda config: config.build(shape if torch.empty(0).is_meta else policy),  # first without memory
        lambda agent: fitting.require_like(data["learned"], agent.state_dict()),
        str(path),
    )
    fitting.loaded(agent, data["learned"], f"what was learned in {path}")
    return agent


def _without_memory(policy: Any) -> Any:
    """The same policy on the device that has shapes and no memory."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return policy.config.build(policy.spec).eval().requires_grad_(False)


def load_base(path: Path) -> Any:
    """The policy to refine: that of a file or of a pretrain run, or what a refiner made that goes on training it.

    Raises for an agent that acts by more than a policy.
    """
    agent = load_agent(path)
    if isinstance(agent, Frozen):
        return agent.policy
    if isinstance(agent, Corrections):
        return agent.base.policy
    raise RobotRLError(
        f"{path} is a {type(agent).__name__}, which acts by more than a policy: `robot-rl distil` makes one of it"
    )


def file_of(path: Path) -> Path:
    """`path`, or what a run's folder `path` made."""
    if not path.is_dir():
        return path
    for name in ("best.pt", "agent.pt", "policy.pt"):
        if (path / name).is_file():
            return path / name
    raise RobotRLError(
        f"{path} holds neither agent.pt nor policy.pt: its run has not finished, or it is no run's folder"
    )
