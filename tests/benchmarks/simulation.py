"""robosuite: our stepping against robosuite's own loop and against bare mj_step; two workers against one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mujoco
import numpy as np
from bench import Row, row, turns

from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from robot_rl import control, vector
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.evaluate import start_states
from robot_rl.types import Agent, Spec
from sim.robosuite_env import RobosuiteConfig, RobosuiteEnv

STEPS = 60


def rows() -> Iterator[Row]:
    """Time of a control step, observations included; throughput of workers."""
    for task in ("Lift", "PickPlaceCan", "NutAssemblySquare"):
        ours, theirs = RobosuiteConfig(task).build(), RobosuiteConfig(task).build()
        times = turns({"ours": _ours(ours), "robosuite": _robosuite(theirs), "mj_step": _bare(ours)}, rounds=7)
        yield row(f"{task}: control step, robosuite's own loop", times["ours"], times["robosuite"])
        yield row(f"{task}: control step, bare mj_step under the same commands", times["ours"], times["mj_step"])
    lift = RobosuiteConfig("Lift")
    env = lift.build()
    spec = env.spec
    env.close()
    one, two = (_workers(lift.build, partial(_agent, spec), n) for n in (1, 2))
    yield row("Lift: step of an evaluation, 2 workers against 1", two, one)


def _actions(env: RobosuiteEnv) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (STEPS, len(env.spec.action))).astype(np.float32)


def _ours(env: RobosuiteEnv) -> Callable[[], int]:
    def play() -> int:
        env.reset(0)
        for action in _actions(env):
            env.step(action)
        return STEPS

    return play


def _robosuite(env: RobosuiteEnv) -> Callable[[], int]:
    suite = env._suite

    def play() -> int:
        env.reset(0)
        for action in control.to_physical(_actions(env), env.spec.action):
            suite.step(action)
        return STEPS

    return play


def _bare(env: RobosuiteEnv) -> Callable[[], int]:
    commands = []
    env.reset(0)
    for action in _actions(env):
        env.step(action)
        commands.append(env._data.ctrl.copy())

    def play() -> int:
        env.reset(0)
        for command in commands:
            env._data.ctrl[:] = command
            mujoco.mj_step(env._model, env._data, env._substeps)
        return STEPS

    return play


def _agent(spec: Spec) -> Agent:
    """An untrained policy of the demo's size: every episode lasts to its time limit."""
    policy = FlowConfig(backbone=MlpConfig(width=256, depth=2)).build(spec).eval().requires_grad_(False)
    policy.fit(np.zeros((2, len(spec.state))), np.array([[-1.0], [1.0]]).repeat(len(spec.action), 1))
    return FrozenConfig().build(policy)


def _workers(make_env: Any, make_player: Any, workers: int) -> float:
    """Seconds a step, once the worlds stand."""
    played = vector.episodes(make_env, make_player, start_states(0, 88), workers)
    for _ in range(8):
        next(played)
    start = time.perf_counter()
    steps = sum(len(episode) for episode in played)
    return (time.perf_counter() - start) / steps
