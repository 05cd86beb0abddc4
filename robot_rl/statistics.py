"""What a number of trials says about the chance of success."""

from __future__ import annotations

import math

from robot_rl.types import RobotRLError

Z_95 = 1.959963984540054  # 97.5 % point of the normal distribution


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a chance, seen `successes` times in n; (0, 1) where nothing was tried."""
    if not 0 <= successes <= n:
        raise RobotRLError(f"{successes} successes in {n} trials: the first must lie between 0 and the second")
    if n == 0:
        return 0.0, 1.0
    share, z2 = successes / n, Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends the interval touches 0 or 1 exactly; rounding must not push it off.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)
