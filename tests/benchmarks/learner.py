"""The learner: gradient steps and replay against stable-baselines3, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from bench import Row, row, turns

from policies.flow import FlowConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.replay import Replay
from robot_rl.types import Channel, Episode, Spec

S, A, BATCH, EPISODES, T = 31, 7, 256, 20, 100
CAMERAS = ("agentview", "wrist")
SPACE = gymnasium.spaces.Box(-1.0, 1.0, (S,), np.float32)
IMAGE = gymnasium.spaces.Box(0, 255, (84, 84, 3), np.uint8)


def rows() -> Iterator[Row]:
    """Gradient steps of equally many and wide critics, the price of 10 critics, and samples with images."""
    torch.set_num_threads(1)
    for width in (256, 128):
        times = turns(
            {
                "sac": _sac(width),
                "ours": _residual(2, width),
                "ten": _residual(10, width),
                "every": _residual(2, width, 1),
            },
            rounds=7,
        )
        yield row(f"gradient step, 2 critics of width {width}, stable-baselines3 SAC", times["ours"], times["sac"])
        yield row(f"the same with an actor step at every critic step, width {width}", times["every"], times["sac"])
        yield row(f"10 critics of width {width} against 2 of ours", times["ten"], times["ours"])
    times = turns({"ours": _our_samples(), "theirs": _their_samples()}, rounds=7)
    yield row("replay sample, 256 transitions with two 84x84 images", times["ours"], times["theirs"])


def _episode(rng: np.random.Generator, images: bool = False) -> Episode:
    obs = {"state": rng.normal(size=(T + 1, S)).astype(np.float32)}
    if images:
        obs |= {f"image/{c}": rng.integers(0, 255, (T + 1, *IMAGE.shape), np.uint8) for c in CAMERAS}
    action = rng.uniform(-1, 1, (T, A)).astype(np.float32)
    base = rng.uniform(-1, 1, (T + 1, A)).astype(np.float32)
    zeros = np.zeros(T, np.float32)
    return Episode(obs, action, zeros, zeros, zeros.astype(bool), False, True, {"base_action": base})


def _residual(heads: int, width: int, actor_every: int = 4) -> Callable[[], int]:
    replay, rng = Replay(), np.random.default_rng(0)
    for _ in range(EPISODES):
        replay.demos.add(_episode(rng))
        replay.online.add(_episode(rng))
    state = tuple(Channel(f"s{i}", "1", -1.0, 1.0) for i in range(S))
    policy = FlowConfig().build(Spec("toy", "", state, state[:A], (), 20.0, T))
    policy.fit(np.random.default_rng(0).normal(size=(100, S)), np.array([[-1.0], [1.0]]).repeat(A, 1))
    config = ResidualConfig(heads=heads, width=width, batch=BATCH, critic_only=0, actor_every=actor_every)
    agent = config.build(policy)
    return lambda: len([agent.update(replay) for _ in range(40)])


class Noise(gymnasium.Env[Any, np.ndarray]):
    """Fills stable-baselines3's buffers."""

    action_space = gymnasium.spaces.Box(-1.0, 1.0, (A,), np.float32)
    observation_space = SPACE

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


def _sac(width: int) -> Callable[[], int]:
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", Noise(), policy_kwargs={"net_arch": [width, width]}, batch_size=BATCH, device="cpu")
    model.learn(500, log_interval=None)

    def train() -> int:
        model.train(40, BATCH)
        return 40

    return train


def _our_samples() -> Callable[[], int]:
    replay, rng = Replay(images=True), np.random.default_rng(0)
    for _ in range(EPISODES):
        replay.online.add(_episode(rng, images=True))
    random = torch.Generator().manual_seed(0)
    return lambda: len([replay.sample(BATCH, 0.0, 1, 0.99, random) for _ in range(20)])


def _their_samples() -> Callable[[], int]:
    from stable_baselines3.common.buffers import DictReplayBuffer

    space = gymnasium.spaces.Dict({"state": SPACE, **{f"image/{c}": IMAGE for c in CAMERAS}})
    buffer = DictReplayBuffer(EPISODES * T, space, Noise.action_space, device="cpu")
    for _ in range(EPISODES * T):
        obs = {key: value[None] for key, value in space.sample().items()}
        buffer.add(obs, obs, Noise.action_space.sample()[None], np.zeros(1), np.zeros(1), [{}])
    return lambda: len([buffer.sample(BATCH) for _ in range(20)])
