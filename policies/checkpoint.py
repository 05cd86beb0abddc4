"""A policy as one file: its config, its Spec, its weights and normaliser. Nothing else is needed to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from policies.diffusion import DiffusionConfig, DiffusionPolicy
from policies.encoders import ConvConfig, VitConfig
from policies.flow import FlowConfig, FlowPolicy
from policies.mlp import MlpConfig
from policies.resnet import ResnetConfig
from policies.transformer import TransformerConfig
from policies.unet import UnetConfig
from policies.vision import VisionConfig
from robot_rl import configs, fitting, sealed
from robot_rl.types import RobotRLError, Spec

PolicyConfig = DiffusionConfig | FlowConfig
KNOWN = (
    DiffusionConfig, FlowConfig, UnetConfig, MlpConfig, TransformerConfig,
    VisionConfig, ConvConfig, ResnetConfig, VitConfig,
)  # fmt: skip
FORMAT = 1


def to_data(policy: DiffusionPolicy | FlowPolicy) -> dict[str, Any]:
    """Everything of a policy as tensors and plain data."""
    return {
        "robot_rl_policy": FORMAT,
        "config": configs.to_data(policy.config),
        "spec": policy.spec.to_dict(),
        "weights": policy.state_dict(),
    }


def from_data(data: dict[str, Any], origin: str) -> DiffusionPolicy | FlowPolicy:
    """The inverse of `to_data`: frozen, in evaluation mode. `origin` names the source in errors."""
    if not fitting.is_format(data, "robot_rl_policy", FORMAT):
        found = f"{data.get('robot_rl_policy', 'none')!r:.40}" if isinstance(data, dict) else type(data).__name__
        raise RobotRLError(
            f"{origin} is not a policy of robot-rl format {FORMAT} (found: {found}); `robot-rl pretrain` makes one"
        )
    fitting.require_parts(data, ("config", "spec", "weights"), origin)
    spec, weights = Spec.from_dict(data["spec"]), data["weights"]

    def fits(net: DiffusionPolicy | FlowPolicy) -> None:
        fitting.require_like(weights, dict(net.state_dict()), "weights")

    policy: DiffusionPolicy | FlowPolicy = fitting.built(data["config"], KNOWN, lambda c: c.build(spec), fits, origin)
    fitting.loaded(policy, weights, origin)
    return policy.eval().requires_grad_(False)


def save(policy: DiffusionPolicy | FlowPolicy, path: Path) -> None:
    """Write a policy atomically."""
    sealed.write(to_data(policy), Path(path))


def load(path: Path) -> DiffusionPolicy | FlowPolicy:
    """Read a policy, or the policy of a run's folder."""
    path = Path(path) / "policy.pt" if Path(path).is_dir() else Path(path)
    return from_data(sealed.read(path), str(path))
