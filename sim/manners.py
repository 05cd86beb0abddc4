"""How people differ who do the same thing, and how one differs from time to time: pace, path, errors, pauses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Manner:
    """How this person works this time. Drawn at the start of an episode."""

    pace: float  # the fastest action of the arm, in (0, 1)
    gain: float  # eagerness: the share of what remains that one action asks for
    hover: float  # above the thing before going down [m]
    side: float  # beside it, across the fingers' line, while above [m]
    turned: int  # 0: the nearest way to grasp it; 1: the next
    first: int  # 0, 1: that horizontal axis first; 2: down last; 3: straight; 4: in an arc
    bulge: float  # the arc's height, per distance to go
    tremor: float  # action noise from step to step (sd)
    drift: float  # action noise that wanders over about a second (sd)
    doubt: float  # probability of a pause before each leg
    pause: float  # mean length of one [steps]
    aim: float  # sd of the error of a first grasp [m]
    slack: float  # times looser than the task needs
    overshoot: float  # sd of going too far before coming back [m]
    notice: int  # steps until a lost thing is noticed
    spot: np.ndarray  # (2,) in [-1, 1]: where in a wide goal
    slip: float  # probability that the fingers open on the way to the goal

    @classmethod
    def drawn(cls, rng: np.random.Generator, clumsy: float) -> Manner:
        """Everyone has a style of their own; the less skilled is slower, coarser, and errs more."""
        return cls(
            pace=rng.uniform(0.68, 0.86) * (1.0 - 0.3 * clumsy),
            gain=rng.uniform(0.7, 1.0) * (1.0 - 0.2 * clumsy),
            hover=rng.uniform(0.05, 0.10) + rng.uniform(0.0, 0.04) * clumsy,
            side=float(rng.choice([-1, 0, 0, 1])) * rng.uniform(0.01, 0.035),
            turned=int(rng.random() < 0.2),
            first=int(rng.integers(5)),
            bulge=rng.uniform(0.1, 0.35),
            tremor=0.015 + 0.05 * clumsy,
            drift=0.01 + 0.07 * clumsy,
            doubt=0.04 + 0.3 * clumsy,
            pause=2.0 + 5.0 * clumsy,
            aim=0.002 + 0.020 * clumsy,
            slack=1.0 + 0.7 * clumsy,
            overshoot=0.003 + 0.025 * clumsy,
            notice=int(rng.integers(2, 5) + round(6 * clumsy)),
            spot=rng.uniform(-1.0, 1.0, 2),
            slip=0.12 * clumsy,
        )
