"""Push-T: an agent pushes a T-shaped block onto a T-shaped goal. The physics is that of the gym_pusht package.

The state is agent x, y, block x, y, cos and sin of the block's angle, and nine points fixed to the block, all in the
pixels of a 512 x 512 picture. A recorded pose (agent x, y, block x, y, block angle) determines all of it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robot_rl import control
from robot_rl.types import CameraSpec, Channel, Obs, RobotRLError, Spec, Step

if TYPE_CHECKING:
    from gym_pusht.envs.pusht import PushTEnv as World

SIZE = 512.0  # side of the table [px]
IMAGE = 96  # side of the observed picture [px]
RATE = 10.0  # [Hz]
CAMERA = "top"
COVERAGE_OF_SUCCESS = 0.95  # part of the goal that the block must cover
GOAL = np.array([256.0, 256.0, np.pi / 4])  # x, y [px], angle [rad] of the block when it covers the goal exactly

# The points that Diffusion Policy's recordings follow, in the block's own frame [px]: fitted to those rows of
# pusht_cchi_v7_replay in which the block rests, where they agree to 1e-4. In rows where it moves the recorded points
# are one physics step (0.01 s) ahead of the recorded pose, at most 2.2 px; ours always belong to the pose.
KEYPOINTS = np.array(
    [
        [9.2698, 90.0410],
        [-60.9835, -1.1867],
        [60.9128, -1.3934],
        [-0.2705, 25.5436],
        [-14.0649, 122.8159],
        [39.0027, 32.8574],
        [-39.9664, 32.7297],
        [-16.8243, 62.8632],
        [23.5415, -1.7003],
    ]
)
# The outline of the block in its own frame [px]: a bar and a stem.
OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], np.float64)


def observe(pose: np.ndarray) -> np.ndarray:
    """Poses (..., 5) agent xy, block xy [px], block angle [rad] to states (..., 24) float32."""
    pose = np.asarray(pose, np.float64)
    turn = np.stack([np.cos(pose[..., 4]), np.sin(pose[..., 4])], -1)
    keypoints = _placed(KEYPOINTS, pose[..., 2:])
    return np.concatenate([pose[..., :4], turn, keypoints.reshape(*pose.shape[:-1], -1)], -1).astype(np.float32)


def grade(pose: np.ndarray) -> np.ndarray:
    """Poses (N, 5) to scores (N,) float32 in [0, 1]: covered part of the goal over what success needs."""
    import shapely

    goal = shapely.Polygon(_placed(OUTLINE, GOAL))
    blocks = shapely.polygons(_placed(OUTLINE, np.asarray(pose, np.float64)[..., 2:]))
    coverage = shapely.area(shapely.intersection(goal, blocks)) / goal.area
    return np.minimum(coverage / COVERAGE_OF_SUCCESS, 1.0).astype(np.float32)


def _placed(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (K, 2) of the block's frame in the picture's (..., K, 2), for block poses (..., 3) x, y, angle."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    rotation = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)  # transposed: points are rows
    return points @ rotation + pose[..., None, :2]


@dataclass(frozen=True)
class PushTConfig:
    """Push-T with the state, and with a 96 x 96 picture beside it where `image` is asked for."""

    max_steps: int = 300
    image: bool = False

    def build(self) -> PushTEnv:
        """The world; raises where gym-pusht is not installed."""
        return PushTEnv(self)

    def spec(self) -> Spec:
        """What `build` gives, without building it: importing recordings needs no physics."""
        names = ["agent_x", "agent_y", "block_x", "block_y", "block_cos", "block_sin"]
        names += [f"keypoint_{k}_{axis}" for k in range(len(KEYPOINTS)) for axis in "xy"]
        state = [
            Channel(n, "", -1.0, 1.0) if n.endswith(("cos", "sin")) else Channel(n, "px", 0.0, SIZE) for n in names
        ]
        action = (Channel("target_x", "px", 0.0, SIZE), Channel("target_y", "px", 0.0, SIZE))
        cameras = (CameraSpec(CAMERA, IMAGE, IMAGE),) if self.image else ()
        return Spec("pusht", "", tuple(state), action, cameras, rate=RATE, max_steps=self.max_steps)


class PushTEnv:
    """The world. An action is where the agent shall go; a controller inside pulls it there for 0.1 s."""

    def __init__(self, config: PushTConfig) -> None:
        self.spec = config.spec()
        self._config = config
        self._world = _world(config.image)
        self._steps = 0

    def reset(self, seed: int | None = None) -> Obs:
        """Agent and block anywhere on the table, drawn as gym-pusht draws them."""
        pixels, _ = self._world.reset(seed=seed)
        return self._begin(pixels)

    def reset_to(self, pose: np.ndarray) -> Obs:
        """Everything at rest at `pose` (5,): agent xy, block xy [px], block angle [rad], as the recordings store it."""
        pose = np.asarray(pose, np.float64)
        if pose.shape != (5,) or not np.isfinite(pose).all():
            raise RobotRLError(f"Push-T starts from 5 finite numbers (agent xy, block xy, block angle), not {pose}")
        # Not the package's own reset_to_state: it turns the block after placing it, and turning moves the block,
        # because it turns about the centre of mass and a position is that of the corner of the T (78 px off).
        self._world._setup()
        self._world.agent.position = pose[:2].tolist()
        self._world.block.angle = float(pose[4])
        self._world.block.position = pose[2:4].tolist()
        # As after every reset of the recorded world: without it, touching bodies part differently (up to 1 px later).
        self._world.space.step(self._world.dt)
        return self._begin(self._world.get_obs())

    def step(self, action: np.ndarray) -> Step:
        """Pull the agent towards the target `action` (2,) in [-1, 1] for 0.1 s."""
        action = control.checked(action, 2)
        target = control.to_physical(action, self.spec.action)
        pixels, score, success, _, _ = self._world.step(target)
        self._steps += 1
        return Step(
            obs=self._obs(pixels),
            action=action,
            reward=float(success),
            terminated=bool(success),
            truncated=not success and self._steps >= self.spec.max_steps,
            score=float(score),
        )

    def render(self) -> np.ndarray:
        """The table from above, (384, 384, 3) uint8, with a cross at the last target."""
        return self._world.render()

    def close(self) -> None:
        """Nothing is held: no window was opened."""

    def pose(self) -> np.ndarray:
        """(5,) float64 agent xy, block xy [px], block angle [rad]: what `reset_to` takes."""
        agent, block = self._world.agent, self._world.block
        return np.array([*agent.position, *block.position, block.angle])

    def _begin(self, pixels: np.ndarray) -> Obs:
        self._world._last_action = None  # else the first picture shows the target of the episode before
        self._steps = 0
        return self._obs(pixels)

    def _obs(self, pixels: np.ndarray) -> Obs:
        stamp = np.float64(self._steps / RATE)
        obs: Obs = {"state": observe(self.pose()), "stamp/state": np.asarray(stamp)}
        if self._config.image:
            obs |= {f"image/{CAMERA}": pixels, f"stamp/image/{CAMERA}": np.asarray(stamp)}
        return obs


def _world(image: bool) -> World:
    """gym_pusht's world, observing pictures only where they are wanted: drawing one costs as much as five steps."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from gym_pusht.envs.pusht import PushTEnv as World
    except ImportError as error:
        raise RobotRLError(f"Push-T needs the package gym-pusht ({error}); run: pip install gym-pusht") from error
    side = {"observation_width": IMAGE, "observation_height": IMAGE}
    shown = {"visualization_width": 384, "visualization_height": 384}
    return World(obs_type="pixels" if image else "state", **side, **shown)
