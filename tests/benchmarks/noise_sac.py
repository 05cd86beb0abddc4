"""Steering by noise: our `dsrl` (variant sac) beside stable-baselines3's SAC in the same noise space, side by side.

python tests/benchmarks/noise_sac.py --base runs/base --demos data/lift --steps 20000 --seeds 0 1 2

Same base, same box of noise, same network width and depth, two critics, same batch, same gradient steps per control
step, reward 1 at success for both, one thread each, one after the other. A wrapper gives stable-baselines3 the world of
chunks, whose action is the noise, with a discount of gamma^execute. Both are evaluated on the same 100 start states.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import torch

from policies import checkpoint
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.checkpoints import load_agent, save_agent
from robot_rl.evaluate import evaluate, start_states
from robot_rl.refine import RefineConfig, refine
from robot_rl.seeds import episode_seed
from sim import worlds

EXECUTE, BOUND, WIDTH, BATCH, UTD, GAMMA, WARM_UP = 8, 1.5, 128, 256, 0.5, 0.99, 2500


def main() -> None:
    """Both, for every seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--demos", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    world = worlds.of_spec(checkpoint.load(given.base).spec)
    base = evaluate(world.build, partial(load_agent, given.base, EXECUTE))["summary"]["successes"]
    print(f"base {base}/100", flush=True)
    with TemporaryDirectory() as folder:  # around all: taking thousands of files away again is nobody's practice
        for seed in given.seeds:
            for name, run in (("ours", partial(_ours, Path(folder) / str(seed))), ("stable-baselines3", _theirs)):
                start, busy = time.perf_counter(), time.process_time()
                wins, practice = run(given.base, given.demos, world, given.steps, seed)
                minutes, of_cpu = (time.perf_counter() - start) / 60, (time.process_time() - busy) / 60
                told = f"{minutes:.2f} min, {of_cpu:.2f} of CPU"  # the latter counts where others share the machine
                print(f"seed {seed} {name}: {wins}/100, {practice:.2f} in practice, {told}", flush=True)


def _ours(out: Path, base: Path, demos: Path, world: worlds.WorldConfig, steps: int, seed: int) -> tuple[int, float]:
    agent = DsrlConfig(
        "sac", EXECUTE, BOUND, GAMMA, heads=2, width=WIDTH, batch=BATCH, critic_only=0, target_entropy=0.0
    )
    practice = RefineConfig(steps, base_steps=WARM_UP, first_updates=0, utd=UTD, threads=1, seed=seed)
    file = refine(out, [demos], world.build, lambda: agent.build(checkpoint.load(base)), practice, {}, save_agent)
    rows = (out / "metrics.jsonl").read_text().splitlines()
    told = evaluate(world.build, partial(load_agent, file))["summary"]["successes"]
    return told, float(np.mean(['"success": 1.0' in row for row in rows]))


class Chunks(gymnasium.Env[Any, np.ndarray]):
    """The world as stable-baselines3 needs it: an action is noise, a step is a chunk."""

    def __init__(self, base: Path, world: worlds.WorldConfig, seed: int) -> None:
        self.policy, self.env, self.seed, self.episode = checkpoint.load(base), world.build(), seed, 0
        self.player = FrozenConfig(EXECUTE).build(self.policy)
        seen = self.policy.n_obs * len(self.policy.spec.state)
        noise = self.policy.horizon * len(self.policy.spec.action)
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (seen,), np.float32)
        self.action_space = gymnasium.spaces.Box(-BOUND, BOUND, (noise,), np.float32)
        self.steps, self.wins = 0, list[float]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        first = self.env.reset(seed if options else episode_seed("refine", self.seed, self.episode))["state"]
        self.episode += 1
        self.history = [first] * self.policy.n_obs
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        history = torch.from_numpy(np.stack(self.history)[None])
        noise = torch.from_numpy(action).view(1, self.policy.horizon, -1)
        reward = 0.0
        for k, one in enumerate(self.policy.sample({"state": history}, noise)[0, :EXECUTE].numpy()):
            step = self.env.step(one)
            self.steps += 1
            reward += GAMMA**k * step.reward
            self.history = [*self.history[1:], step.obs["state"]]
            if step.terminated or step.truncated:
                self.wins.append(float(step.terminated))
                break
        return self._seen(), reward, step.terminated, step.truncated, {}

    def _seen(self) -> np.ndarray:
        state = torch.from_numpy(np.stack(self.history))
        return self.policy.normalise(state).flatten().numpy()


def _theirs(base: Path, demos: Path, world: worlds.WorldConfig, steps: int, seed: int) -> tuple[int, float]:
    from stable_baselines3 import SAC
    from stable_baselines3.common.callbacks import BaseCallback

    class Until(BaseCallback):
        def _on_step(self) -> bool:
            return chunks.steps < steps

    chunks = Chunks(base, world, seed)
    model = SAC(
        "MlpPolicy",
        chunks,
        gamma=GAMMA**EXECUTE,
        batch_size=BATCH,
        learning_starts=WARM_UP // EXECUTE,
        gradient_steps=int(UTD * EXECUTE),
        target_entropy=0.0,
        ent_coef="auto_0.01",
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
        seed=seed,
        device="cpu",
    )
    model.learn(10**9, callback=Until(), log_interval=None)
    practised = list(chunks.wins)
    wins = 0
    for start in start_states(0, 100):
        obs, _ = chunks.reset(seed=start, options={"evaluate": True})
        over = False
        while not over:
            obs, _, terminated, truncated, _ = chunks.step(model.predict(obs, deterministic=False)[0])
            over = terminated or truncated
        wins += terminated
    return wins, float(np.mean(practised))


if __name__ == "__main__":
    main()
