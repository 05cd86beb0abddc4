"""A reward from pictures: a binary classifier of success, with guards on the state beside it. A checkpoint is one file.

Success is claimed where the classifier's probability reaches its threshold and every guard agrees. The threshold comes
from episodes that training has not seen (`robot_rl/reward.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from policies.encoders import ConvConfig, VitConfig
from policies.resnet import ResnetConfig
from policies.vision import VisionConfig
from robot_rl import configs, fitting, sealed
from robot_rl.types import Obs, RobotRLError, Spec

FORMAT = 1


@dataclass(frozen=True)
class ClassifierConfig:
    """A classifier of success."""

    vision: VisionConfig = field(default_factory=lambda: VisionConfig(jitter=0.1))
    """how it sees"""
    guards: tuple[str, ...] = ()
    """what the state must be like beside, each CHANNEL>VALUE or CHANNEL<VALUE, in the channel's unit"""

    def build(self, spec: Spec) -> Classifier:
        """An untrained classifier for the worlds of `spec`."""
        return Classifier(spec, self)


KNOWN = (ClassifierConfig, VisionConfig, ConvConfig, ResnetConfig, VitConfig)


class Classifier(nn.Module):
    """Pictures of all cameras in, a logit out. Called with an observation it is a reward: 1 at success, else 0."""

    def __init__(self, spec: Spec, config: ClassifierConfig) -> None:
        super().__init__()
        self.spec, self.config, self.threshold = spec, config, math.inf
        self.vision = config.vision.build(spec.cameras)
        self.outlet = nn.Sequential(nn.ReLU(), nn.Linear(self.vision.size, 1))
        self._guards = [_guard(text, spec) for text in config.guards]

    def forward(self, pictures: dict[str, Tensor]) -> Tensor:
        """ "image/<camera>" (B, H, W, 3) uint8 to logits (B,)."""
        return self.outlet(self.vision({key: value[:, None] for key, value in pictures.items()})[:, 0])[:, 0]

    @torch.no_grad()
    def reward(self, obs: Obs) -> float:
        """Of one observation: 1.0 where it shows success, else 0.0."""
        if not self.allowed(obs["state"][None])[0]:
            return 0.0
        pictures = {key: torch.from_numpy(value[None]) for key, value in obs.items() if key.startswith("image/")}
        return float(self(pictures).sigmoid() >= self.threshold)

    def allowed(self, state: np.ndarray) -> np.ndarray:
        """(N,) bool: where the states (N, S) satisfy every guard."""
        allowed = np.ones(len(state), bool)
        for channel, sign, bound in self._guards:
            allowed &= sign * (state[:, channel] - bound) > 0
        return allowed


def save(classifier: Classifier, path: Path) -> None:
    """Write a classifier atomically."""
    data = {
        "robot_rl_reward": FORMAT,
        "config": configs.to_data(classifier.config),
        "spec": classifier.spec.to_dict(),
        "threshold": classifier.threshold,
        "weights": classifier.state_dict(),
    }
    sealed.write(data, Path(path))


def file_of(path: Path) -> Path:
    """`path`, or what a run's folder `path` made."""
    return Path(path) / "reward.pt" if Path(path).is_dir() else Path(path)


def load(path: Path) -> Classifier:
    """Read a classifier, or that of a run's folder: frozen, in evaluation mode."""
    path = file_of(path)
    data = sealed.read(path)
    if not fitting.is_format(data, "robot_rl_reward", FORMAT):
        raise RobotRLError(f"{path} is no reward of robot-rl format {FORMAT}; `robot-rl reward` makes one")
    fitting.require_parts(data, ("config", "spec", "weights", "threshold"), str(path))
    spec, weights = Spec.from_dict(data["spec"]), data["weights"]

    def fits(net: Classifier) -> None:
        fitting.require_like(weights, dict(net.state_dict()), "weights")
        fitting.require_like(data["threshold"], 0.5, "threshold")

    classifier: Classifier = fitting.built(data["config"], KNOWN, lambda c: c.build(spec), fits, str(path))
    fitting.loaded(classifier, weights, str(path))
    classifier.threshold = data["threshold"]
    return classifier.eval().requires_grad_(False)


def _guard(text: str, spec: Spec) -> tuple[int, int, float]:
    """Channel, sign and bound of CHANNEL>VALUE or CHANNEL<VALUE."""
    names = [channel.name for channel in spec.state]
    for symbol, sign in ((">", 1), ("<", -1)):
        name, found, value = (part.strip() for part in text.partition(symbol))
        if not found:
            continue
        try:
            bound = float(value)
        except ValueError:
            bound = math.nan
        if name not in names or not math.isfinite(bound):
            raise RobotRLError(f"the guard '{text}' names no channel and bound; channels are: {', '.join(names)}")
        return names.index(name), sign, bound
    raise RobotRLError(f"the guard '{text}' must be CHANNEL>VALUE or CHANNEL<VALUE")
