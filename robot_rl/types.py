"""The nouns of the project: records, and the protocols that join them. Read this file first.

Shape letters used everywhere: B batch, To observations of history, T steps of an episode, H horizon
of a chunk, h executed part of a chunk, A action, S state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from robot_rl.replay import Replay

# "state" (S,) float32; "image/<camera>" (H, W, 3) uint8 RGB, or depth (see `CameraSpec`); "stamp/<key>" () float64,
# the moment the reading <key> was acquired [s], on the clock of the world (simulated or ROS time). What `decide` sees
# also has "intervened" () bool: a human made the last step, and plans from before are stale; and where a plan is made
# while another is played (`realtime.py`), "committed" (n, A): actions from that moment on that will be executed
# whatever is planned, and where the loop gives it, "executed" (A,): the last action as it was really executed.
Obs = dict[str, np.ndarray]
Metrics = dict[str, float]
LARGEST_IMAGE = 2**15  # pixels of a side


class RobotRLError(Exception):
    """Something the user can mend. The message names the thing and the remedy."""


@dataclass(frozen=True)
class Channel:
    """One number of a state or an action: its name, its unit, and the range it lives in.

    For an action, `low` and `high` are what -1 and +1 mean (see `control.py`). Where `seen`, nobody told the range: it
    is what one recording showed, and another one of the same robot shows another (see `Spec.joined`).
    """

    name: str
    unit: str
    low: float
    high: float
    seen: bool = False

    @classmethod
    def from_dict(cls, data: Any) -> Channel:
        """The inverse of `asdict`; raises ValueError where it is none."""
        channel = cls(**data)
        numbers = (channel.low, channel.high)
        if not (isinstance(channel.name, str) and isinstance(channel.unit, str) and isinstance(channel.seen, bool)):
            raise ValueError(f"{data} names no channel")
        if not all(isinstance(n, (int, float)) and not math.isnan(n) for n in numbers):
            raise ValueError(f"the range of channel '{channel.name:.60}' is {numbers}")
        return channel


@dataclass(frozen=True)
class CameraSpec:
    """One camera's name and image size in pixels; images are (height, width, 3) uint8 RGB.

    Those of a depth camera are (height, width, 1) uint16: the distance along its axis [mm], 0 where none was measured
    (REP 118).
    """

    name: str
    height: int
    width: int
    shadows: bool = True  # rendered ones only: with shadows and reflections
    depth: bool = False

    @classmethod
    def from_dict(cls, data: Any) -> CameraSpec:
        """The inverse of `asdict`; raises ValueError where it is none."""
        camera = cls(**data)
        if not (isinstance(camera.name, str) and isinstance(camera.depth, bool) and isinstance(camera.shadows, bool)):
            raise ValueError(f"{data} names no camera")
        if not all(type(n) is int and 0 < n <= LARGEST_IMAGE for n in (camera.height, camera.width)):
            raise ValueError(f"images of camera '{camera.name:.60}' are {camera.height} x {camera.width} pixels")
        return camera

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return self.height, self.width, 1 if self.depth else 3

    @property
    def dtype(self) -> np.dtype:
        """Of an image."""
        return np.dtype(np.uint16 if self.depth else np.uint8)


@dataclass(frozen=True)
class Spec:
    """What a policy and a world must agree on. It travels inside every store and checkpoint."""

    world: str  # "robosuite:Lift", "pusht", "toy"
    arm: str  # "Panda"; "" where the world has only one body
    state: tuple[Channel, ...]
    action: tuple[Channel, ...]
    cameras: tuple[CameraSpec, ...]
    rate: float  # control rate [Hz]
    max_steps: int  # an episode is truncated after so many control steps

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready data; `Spec.from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Spec:
        """The inverse of `to_dict`."""
        try:
            return cls(
                **{
                    **data,
                    "state": tuple(Channel.from_dict(c) for c in data["state"]),
                    "action": tuple(Channel.from_dict(c) for c in data["action"]),
                    "cameras": tuple(CameraSpec.from_dict(c) for c in data["cameras"]),
                }
            )._checked()
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise RobotRLError(f"this is not a Spec of robot-rl: {error}") from error

    def _checked(self) -> Spec:
        """Itself; raises ValueError where a field is none of what it must be."""
        if not (isinstance(self.world, str) and isinstance(self.arm, str)):
            raise ValueError(f"its world and arm are {self.world!r:.60} and {self.arm!r:.60}")
        if not isinstance(self.rate, (int, float)) or isinstance(self.rate, bool) or not 0 < self.rate < math.inf:
            raise ValueError(f"its rate is {self.rate!r:.60}")
        if type(self.max_steps) is not int or self.max_steps < 1:
            raise ValueError(f"its max_steps is {self.max_steps!r:.60}")
        return self

    def joined(self, other: Spec, mine: str, theirs: str, *, state_only: bool = False) -> Spec:
        """The Spec for both: ranges that were only seen are made so wide that they hold both; all else must be alike.

        Raises as `require` does. What was stored under the narrower one is read with `control.reexpressed`.
        """
        joint = replace(self, state=_wider(self.state, other.state), action=_wider(self.action, other.action))
        back = replace(other, state=_wider(other.state, self.state), action=_wider(other.action, self.action))
        joint.require(back, mine, theirs, state_only=state_only, any_limit=True)
        return joint

    def require(
        self, other: Spec, mine: str, theirs: str, *, state_only: bool = False, any_limit: bool = False
    ) -> None:
        """Raise unless `other` is the same; the message prints both sides of every difference.

        `state_only` lets the cameras and the time limit differ: a policy that sees only the state may act
        in a world that also renders, or that gives it more time. `any_limit` lets only the time limit differ.
        """
        skip = {"cameras", "max_steps"} if state_only else {"max_steps"} if any_limit else set()
        differing = [
            f"  {f.name}: {mine} has {_brief(getattr(self, f.name), getattr(other, f.name))}\n"
            f"  {' ' * len(f.name)}  {theirs} has {_brief(getattr(other, f.name), getattr(self, f.name))}"
            for f in fields(self)
            if f.name not in skip and getattr(self, f.name) != getattr(other, f.name)
        ]
        if differing:
            lines = "\n".join(differing)
            raise RobotRLError(
                f"{mine} and {theirs} do not describe the same robot and task:\n{lines}\n"
                f"Use the world, arm, cameras and rate that {mine} was made with, or make it again for {theirs}."
            )


def _wider(channels: tuple[Channel, ...], others: tuple[Channel, ...]) -> tuple[Channel, ...]:
    """`channels`, of which those with seen ranges take in the ranges of their namesakes among `others`."""
    if len(channels) != len(others):
        return channels
    return tuple(
        replace(a, low=min(a.low, b.low), high=max(a.high, b.high)) if a.seen and b.seen else a
        for a, b in zip(channels, others, strict=True)
    )


def _brief(value: object, other: object) -> str:
    """`value` for an error message: of long channel lists only what differs."""
    if not isinstance(value, tuple) or not isinstance(other, tuple):
        return repr(value)
    only_here = [v for v in value if v not in other]
    return f"{len(value)} entries, of which only here: {only_here[:4]}{' ...' if len(only_here) > 4 else ''}"


@dataclass(frozen=True)
class Step:
    """What the world answers to one action."""

    obs: Obs
    action: np.ndarray  # (A,) in [-1, 1]: what was REALLY executed, after limits and after the human
    reward: float  # sparse: 1 at success, else 0
    terminated: bool  # success (or a failure that ends the task): no bootstrap
    truncated: bool  # time-out or abort: bootstrap
    intervened: bool = False  # the human acted, not the agent
    score: float = 0.0  # graded progress in [0, 1]; 1 means success. Worlds without a grade repeat `reward`


@dataclass(frozen=True)
class Decision:
    """What an agent wants done next, and what it wants remembered beside it."""

    actions: np.ndarray  # (h, A) in [-1, 1], h >= 1
    extras: dict[str, np.ndarray] = field(default_factory=dict)  # each (h, ...): one row an action


@dataclass
class Episode:
    """One attempt at a task, complete: T actions between T + 1 observations."""

    obs: Obs  # each (T + 1, ...)
    action: np.ndarray  # (T, A) float32 in [-1, 1], as executed
    reward: np.ndarray  # (T,) float32
    score: np.ndarray  # (T,) float32
    intervened: np.ndarray  # (T,) bool
    terminated: bool
    truncated: bool
    extras: dict[str, np.ndarray] = field(default_factory=dict)  # each (T + 1, ...)
    meta: dict[str, Any] = field(default_factory=dict)  # JSON-ready: seed, who acted, where it came from

    def __len__(self) -> int:
        return len(self.action)

    @property
    def success(self) -> bool:
        """True when the task was solved at some step."""
        return bool(np.any(self.reward > 0))


@dataclass(frozen=True)
class ArmState:
    """What was measured of an arm at one moment. Base frame; quaternions xyzw turn the tool's axes to the base's."""

    stamp: float  # when it was measured [s]
    position: np.ndarray  # (3,) of the tool [m]
    turn: np.ndarray  # (4,)
    joints: np.ndarray  # (n,) [rad]
    gripper: float  # 0 closed, 1 open
    wrench: np.ndarray  # (6,) on the tool: force [N], torque [Nm]


@dataclass(frozen=True)
class Frame:
    """A picture of one moment."""

    stamp: float  # when it was taken [s]
    image: np.ndarray  # (H, W, 3) uint8 RGB, or depth (H, W, 1) uint16; see `CameraSpec`
    number: int  # by the device's own count, where it counts: a gap is a loss


@dataclass(frozen=True)
class Target:
    """Where an arm's tool shall be; frames and units as in `ArmState`."""

    stamp: float  # of the observation it came from, not of its sending [s]
    position: np.ndarray  # (3,)
    turn: np.ndarray  # (4,)
    gripper: float | None  # 0 closed, 1 open; None: nothing is asked of the fingers, they stay as they were told
    source: str  # who wants it: "policy", "teleop", "homing"


class Policy(Protocol):
    """Observation and noise in, chunk of actions out. Trained by imitation, then frozen."""

    spec: Spec
    horizon: int  # H
    n_obs: int  # To
    n_seen: int  # D, the numbers of an observation that it goes by: channels of the state, features of pictures
    sees_images: bool

    @property
    def vision(self) -> Any:
        """Its eyes, a module that gives features (B, To, F) of pictures, F being its `size`; None where it has none."""

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Imitation loss of a batch: an observation (see `sample`) and "action" (B, H, A)."""

    def look(self, obs: dict[str, Tensor]) -> Tensor:
        """Rows (B, To, S + F) of an observation: its state, and beside it the F features of its pictures.

        They stand for "state" and pictures together wherever an observation is asked for. F is 0 without eyes.
        """

    def normalise(self, state: Tensor) -> Tensor:
        """Rows (..., S + F) to the D numbers that it goes by, states to about [-1, 1] by their ranges in the data."""

    def sample(self, obs: dict[str, Tensor], noise: Tensor | None = None, committed: Tensor | None = None) -> Tensor:
        """(B, H, A) in [-1, 1] at "state" (B, To, S) and, if it has eyes, "image/<camera>" (B, To, H, W, 3) uint8.

        The same noise (B, H, A) gives the same chunk. It begins with `committed` (B, n, A) in [-1, 1], n <= H, which
        will be executed whatever is planned, and goes on from it.
        """


class Player(Protocol):
    """What acts: an agent, or an operator who demonstrates."""

    n_obs: int  # how many observations of history `decide` sees

    def reset(self, seed: int | None = None) -> None:
        """Start an episode: forget every queued action; the seed fixes the noise of the whole episode."""

    def decide(self, obs: Obs, *, explore: bool) -> Decision:
        """Actions for the observation history `obs`, each entry (n_obs, ...), newest last."""


class Agent(Player, Protocol):
    """What acts and learns. It holds a Policy and refines it; `frozen` just plays it."""

    policy: Any  # the base, as it was given

    def twin(self) -> Self:
        """Another player of the same weights, with an episode of its own."""

    @staticmethod
    def decide_all(players: Sequence[Any], obs: Sequence[Obs], *, explore: bool, rows: int = 1) -> list[Decision]:
        """`decide` of many twins at once, `rows` of them in a policy call; who shares a call changes nothing."""

    def label(self, episode: Episode) -> dict[str, np.ndarray]:
        """The extras, each (T + 1, ...), that it would have remembered along someone else's episode."""

    def update(self, replay: Replay) -> Metrics:
        """One gradient step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that learning changes, random generators included."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken."""


class Camera(Protocol):
    """One camera. It never blocks for long."""

    def read(self) -> Frame | None:
        """The next picture, none twice; None: none has come since."""

    def close(self) -> None:
        """Give the device back."""


class Env(Protocol):
    """One clocked world, simulated or real."""

    spec: Spec

    def reset(self, seed: int | None = None) -> Obs:
        """Begin an episode; the same seed gives the same start."""

    def step(self, action: np.ndarray) -> Step:
        """Execute one action (A,) in [-1, 1] for one control period."""

    def render(self) -> np.ndarray:
        """A picture for people, (H, W, 3) uint8 RGB; not part of the observation."""

    def close(self) -> None:
        """Release what the world holds."""
