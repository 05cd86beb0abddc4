"""Whether the arm goes where its setpoint is, and how far ahead of it the setpoint may be.

An arm under impedance control lags behind its setpoint, by 5 cm at 0.25 m/s with a time constant of 0.2 s, and hangs
below it under its load: both is allowed up to a lead. One in an emergency stop, a reflex or a protective stop stands
still: the setpoint waits for it at the lead, and after `PATIENCE` the arm counts as one that does not follow. Pure.
"""

from __future__ import annotations

import numpy as np

from drivers.sound import length
from robot_rl.geometry import angle_between, quat_from_vector, quat_inverse, quat_product, unit_quat, vector_from_quat
from robot_rl.types import ArmState

PATIENCE = 0.8  # that a setpoint waits for an arm which does not move, or that is pushed from it [s]
MOVES = (0.005, 0.02)  # an arm that goes so far meanwhile follows, though slowly [m], [rad]
PUSHED = 1.1  # times the lead: no lag, but the arm went elsewhere


class Following:
    """Keeps a setpoint within `lead` [m] and `lead_turn` [rad] of the measured arm."""

    def __init__(self, lead: float, lead_turn: float) -> None:
        self._lead, self._lead_turn = lead, lead_turn
        self._since: float | None = None  # when the setpoint began to wait [s]
        self._from: ArmState | None = None  # where the arm was then

    def within(
        self, position: np.ndarray, turn: np.ndarray, state: ArmState, brakes: tuple[float, float]
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The pose, brought so near to the measured one that a setpoint which `brakes` so long ends within the lead.

        `brakes` are its ways to rest [m], [rad]. And whether the pose was beyond.
        """
        measured = unit_quat(state.turn)
        way, roll = position - state.position, vector_from_quat(quat_product(turn, quat_inverse(measured)))
        away, turned = length(way), length(roll)
        near, near_turn = max(self._lead - brakes[0], 0.0), max(self._lead_turn - brakes[1], 0.0)
        if away > near:
            position = state.position + way * (near / away)
        if turned > near_turn:
            turn = unit_quat(quat_product(quat_from_vector(roll * (near_turn / turned)), measured))
        return position, turn, away > near or turned > near_turn

    def away(self, position: np.ndarray, turn: np.ndarray, state: ArmState) -> tuple[float, float]:
        """From the measured arm to a pose [m], [rad]."""
        return length(position - state.position), angle_between(turn, unit_quat(state.turn))

    def lags(self, position: np.ndarray, turn: np.ndarray, state: ArmState) -> bool:
        """Whether it is the arm that takes up most of the lead, rather than the way left to the target."""
        away, turned = self.away(position, turn, state)
        return away > 0.5 * self._lead or turned > 0.5 * self._lead_turn

    def fails(self, waits: bool, position: np.ndarray, turn: np.ndarray, state: ArmState, steady: float) -> str:
        """Why an arm does not follow its setpoint, which `waits` for it at the lead; "": it does. Once a period."""
        away, turned = self.away(position, turn, state)
        pushed = away > PUSHED * self._lead or turned > PUSHED * self._lead_turn
        if not (waits or pushed):
            self._since = None
            return ""
        if self._since is None or self._from is None or (not pushed and self._moved(self._from, state)):
            self._since, self._from = steady, state
        if steady - self._since <= PATIENCE:
            return ""
        return f"the arm does not follow: it is {away:.3f} m and {turned:.2f} rad from its setpoint"

    @staticmethod
    def _moved(before: ArmState, state: ArmState) -> bool:
        return (
            length(state.position - before.position) > MOVES[0]
            or angle_between(unit_quat(state.turn), unit_quat(before.turn)) > MOVES[1]
        )
