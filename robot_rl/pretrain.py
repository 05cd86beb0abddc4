"""The verb `pretrain`: imitate the demonstrations of a store with a diffusion or flow policy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from robot_rl import fingerprints, fitting, joint, ranges
from robot_rl.episodes import EpisodeStore
from robot_rl.progress import progress
from robot_rl.quality import no_success
from robot_rl.runs import Run
from robot_rl.types import RobotRLError, Spec
from robot_rl.windows import Windows


class PolicyConfig(Protocol):
    """A config that builds a trainable policy."""

    @property
    def horizon(self) -> int:
        """Actions in a chunk."""

    @property
    def n_obs(self) -> int:
        """Observations of history."""

    @property
    def vision(self) -> Any:
        """How pictures are seen; None: they are not."""

    def build(self, spec: Spec) -> Any:
        """An untrained policy for the worlds of `spec`."""


@dataclass(frozen=True)
class PretrainConfig:
    """How a policy is trained by imitation."""

    steps: int = 20_000
    """gradient steps"""
    batch: int = 256
    """windows in a step"""
    learning_rate: float = 1e-3
    """peak of the cosine schedule"""
    weight_decay: float = 1e-4
    """of AdamW"""
    warmup: int = 500
    """steps in which the learning rate rises to its peak"""
    ema: float = 0.9999
    """largest decay of the weights' moving average; what is saved is the average"""
    save_every: int = 1000
    """steps between checkpoints"""
    max_episodes: int | None = None
    """use the first so many episodes only"""
    threads: int = 1
    """CPU threads; the result depends on it in the last bits"""
    device: str = "cpu"
    """where to train: cpu, cuda"""
    seed: int = 0
    """of the initial weights and the batches"""


FREE = ("pretrain.save_every", "pretrain.threads", "pretrain.device")  # may change on resuming
GROWS = ("pretrain.steps",)


def pretrain(
    out: Path,
    stores: Path | Sequence[Path],
    policy_config: PolicyConfig,
    config: PretrainConfig,
    save: Callable[[Any, Path], None],
) -> Path:
    """Train on one store or several into the folder `out`, or resume it; returns the policy's file.

    `save` writes a policy to a file.
    """
    ranges.require(config)
    _require_device(config.device)
    paths = [Path(stores)] if isinstance(stores, (str, Path)) else [Path(store) for store in stores]
    described = {"store": [str(path.resolve()) for path in paths], "policy": policy_config, "pretrain": config}
    with Run(out, "pretrain", described, free=FREE, grows=GROWS) as run:
        used, windows = windows_of(paths, policy_config, config.max_episodes)
        torch.set_num_threads(config.threads)
        trainer = Trainer(policy_config, config, used[0][0].spec, windows)
        run.begin(fingerprints.of_stores(used))
        if (state := run.load()) is not None:
            trainer.load_state_dict(state)
            run.rewind(trainer.step)
        _train(trainer, run)
        save(trainer.averaged(), run.path / "policy.pt")
        return run.path / "policy.pt"


def windows_of(
    paths: Sequence[Path], policy: PolicyConfig, most: int | None
) -> tuple[list[tuple[EpisodeStore, int]], Windows]:
    """The stores, each with how many of its episodes are used, `most` in all, and the windows of those."""
    sources = [EpisodeStore.open(path) for path in paths]
    blind = policy.vision is None
    joint.join(sources, state_only=blind)
    places = [(s, i) for s in sources for i in range(len(s))][:most]
    used = [(s, sum(s is t for t, _ in places)) for s in sources]
    episodes = [s.read(i, images=False) for s, i in places]
    for warning in no_success(sources[0].spec, episodes):  # they are imitated all the same
        print(f"WARNING  {warning}", file=sys.stderr)
    windows = Windows(episodes, policy.horizon, policy.n_obs)
    if not blind:
        windows.see(sources[0].spec.cameras, (s.read(i) for s, i in places))
    return used, windows


def _train(trainer: Trainer, run: Run) -> None:
    config = trainer.config
    shown = progress("pretrain", config.steps, trainer.step)
    losses: list[torch.Tensor] = []
    while trainer.step < config.steps:
        losses.append(trainer.train_step())
        if trainer.step % config.save_every == 0 or trainer.step == config.steps:
            run.log(trainer.step, {"loss": _finite_mean(losses, trainer.step), "learning_rate": trainer.learning_rate})
            losses.clear()
            run.save(trainer.state_dict())
        shown.update()
    shown.close()


def _require_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise RobotRLError(f"there is no device '{device}'; --device is cpu, cuda or cuda:1") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise RobotRLError(f"this machine has no CUDA device for --device {device}; leave it out, or use cpu")


def _finite_mean(losses: list[torch.Tensor], step: int) -> float:
    mean = float(torch.stack(losses).mean())
    if mean != mean or mean in (float("inf"), float("-inf")):
        raise RobotRLError(
            f"the loss is {mean} near step {step}; the last checkpoint is kept. Lower the learning rate."
        )
    return mean


class Trainer:
    """A policy in training: weights, their average, optimiser, schedule and the order of the batches."""

    def __init__(self, policy_config: PolicyConfig, config: PretrainConfig, spec: Spec, windows: Windows) -> None:
        from diffusers.optimization import get_cosine_schedule_with_warmup  # here, because it takes two seconds
        from diffusers.training_utils import EMAModel

        torch.manual_seed(config.seed)
        self.config, self.windows, self.step = config, windows, 0
        self.policy = policy_config.build(spec)
        self.policy.fit(windows.state.numpy(), windows.action.numpy())
        self.policy.to(config.device)
        weights = list(self.policy.parameters())
        self.ema = EMAModel(weights, decay=config.ema, use_ema_warmup=True, power=0.75, foreach=True)
        self.optimizer = torch.optim.AdamW(
            weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, config.warmup, config.steps)

    def train_step(self) -> torch.Tensor:
        """One gradient step; returns its loss, detached."""
        index = torch.randint(len(self.windows), (self.config.batch,))
        batch = {k: v.to(self.config.device) for k, v in self.windows.batch(index).items()}
        loss = self.policy.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.ema.step(self.policy.parameters())
        self.step += 1
        return loss.detach()

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def averaged(self) -> Any:
        """The policy with its averaged weights: what is evaluated and refined."""
        self.ema.copy_to(self.policy.parameters())
        return self.policy.eval()

    def state_dict(self) -> dict[str, Any]:
        """All that training changes, random generator included."""
        return {
            "step": self.step,
            "policy": self.policy.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
        }

    @fitting.restores
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""
        self.step = state["step"]
        self.policy.load_state_dict(state["policy"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        schedule = self.schedule  # of this run's length, which may have grown since
        rates = [rate * of(self.step) for of, rate in zip(schedule.lr_lambdas, schedule.base_lrs, strict=True)]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        schedule._last_lr = rates
        self.ema.to(self.config.device)
        torch.set_rng_state(state["random"])
