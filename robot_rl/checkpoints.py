"""Agents on disk: one file holds the config, the base policy and what was learned on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from policies import checkpoint as policy_file
from robot_rl import configs
from robot_rl.agents.corrections import Corrections, CorrectionsConfig
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.expo import ExpoConfig
from robot_rl.agents.frozen import Frozen, FrozenConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.agents.rlpd import RlpdConfig
from robot_rl.agents.taco import TacoConfig
from robot_rl.runs import atomically, read_torch
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
    atomically(Path(path), lambda part: torch.save(data, part))


def load_agent(path: Path, execute: int | None = None) -> Any:
    """The agent in a file or in a run's folder: the promoted one, where there is one.

    A bare policy is played frozen, `execute` actions of each chunk.
    """
    path = file_of(Path(path))
    data = read_torch(path)
    if "robot_rl_policy" in data:
        policy = policy_file.from_data(data, str(path))
        steps = min(FrozenConfig.execute, policy.horizon) if execute is None else execute
        return FrozenConfig(steps).build(policy)
    if data.get("robot_rl_agent") != FORMAT:
        raise RobotRLError(f"{path} is neither a policy nor an agent of robot-rl; `pretrain` and `refine` make them")
    if execute is not None:
        raise RobotRLError(
            f"{path} is a refined agent: it fixes how many actions of a chunk it executes; drop --execute"
        )
    policy = policy_file.from_data(data["policy"], str(path))
    agent = configs.from_data(data["config"], KNOWN).build(policy)
    try:
        agent.load_state_dict(data["learned"])
    except (KeyError, RuntimeError) as error:
        raise RobotRLError(f"what was learned in {path} does not fit this version of its agent: {error}") from error
    return agent


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
