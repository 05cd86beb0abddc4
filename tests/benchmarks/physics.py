"""Is it robosuite's physics? Random actions and scripted operators, our stepping beside robosuite's own `env.step`.

Run it by hand: python tests/benchmarks/physics.py. It takes about a quarter of an hour and prints two tables.
"""

from __future__ import annotations

import numpy as np

from robot_rl import control
from robot_rl.evaluate import start_states
from robot_rl.rollout import rollout
from robot_rl.statistics import wilson
from sim.operators import operator_for
from sim.robosuite_env import RobosuiteConfig, RobosuiteEnv

TASKS = ("Lift", "PickPlaceCan", "NutAssemblySquare", "Stack", "Door")
MARKS = (1, 10, 50, 200)
EPISODES, TRIALS = 20, 200


class RobosuitesOwn(RobosuiteEnv):
    """The same world, stepped by robosuite."""

    def _advance(self, command: np.ndarray) -> bool:
        self._suite.step(command)
        self._mujoco.mj_kinematics(self._model, self._data)
        return False


def main() -> None:
    """Both tables."""
    print(
        "largest difference over 20 episodes of random actions after so many control steps: joints [rad, m] and their"
    )
    print("velocities, poses of objects included; and the largest as long as the robot touched nothing")
    for task in TASKS:
        print(f"{task:18}", *_random_actions(RobosuiteConfig(task)), flush=True)
    print("\nscripted operator, skill 0.7, 200 start states")
    for task in TASKS[:-1]:
        config = RobosuiteConfig(task)
        wins = [_operated(kind(config)) for kind in (RobosuiteEnv, RobosuitesOwn)]
        words = [f"{n}/{TRIALS} ({100 * wilson(n, TRIALS)[0]:.0f}-{100 * wilson(n, TRIALS)[1]:.0f} %)" for n in wins]
        print(f"{task:18} ours {words[0]:22} robosuite {words[1]}", flush=True)


def _random_actions(config: RobosuiteConfig) -> list[str]:
    ours, theirs = config.build(), RobosuitesOwn(config)
    worst = {mark: np.zeros(2) for mark in MARKS}
    untouched, agreeing, firsts = np.zeros(2), 0, []
    for seed in range(EPISODES):
        ours.reset(seed)
        theirs.reset(seed)
        rng, apart, touched = np.random.default_rng([seed, 7]), np.zeros(2), None
        success = np.zeros(2, bool)
        for step in range(1, MARKS[-1] + 1):
            action = control.checked(rng.uniform(-1, 1, len(ours.spec.action)), len(ours.spec.action))
            success |= [env.step(action).reward > 0 for env in (ours, theirs)]
            apart = np.array(
                [np.abs(getattr(ours._data, n) - getattr(theirs._data, n)).max() for n in ("qpos", "qvel")]
            )
            if touched is None and _touches(theirs):
                touched = step
                firsts.append(step)
            if touched is None:
                untouched = np.maximum(untouched, apart)
            if step in MARKS:
                worst[step] = np.maximum(worst[step], apart)
        agreeing += bool(success[0] == success[1])
    told = [f"{mark}: {q:.0e} {v:.0e}" for mark, (q, v) in worst.items()]
    first = f"first touch at step {np.median(firsts):.0f} (median of {len(firsts)})" if firsts else "no touch"
    return [*told, f"untouched: {untouched[0]:.0e} {untouched[1]:.0e}", first, f"success agrees {agreeing}/{EPISODES}"]


def _touches(env: RobosuiteEnv) -> bool:
    """Whether the robot touches anything, itself included."""
    names = env._suite.sim.model.geom_id2name
    pairs = ((names(c.geom1), names(c.geom2)) for c in env._data.contact[: env._data.ncon])
    return any(str(name).startswith(("robot0", "gripper0")) for pair in pairs for name in pair)


def _operated(env: RobosuiteEnv) -> int:
    operator = operator_for(env.spec, 0.7)
    return sum(rollout(env, operator, explore=False, seed=seed).success for seed in start_states(0, TRIALS))


if __name__ == "__main__":
    main()
