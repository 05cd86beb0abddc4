"""Several stores as one: recordings of the same robot whose ranges nobody told show different ones."""

from __future__ import annotations

from collections.abc import Sequence

from robot_rl.episodes import EpisodeStore
from robot_rl.types import Spec


def join(stores: Sequence[EpisodeStore], *, state_only: bool = False) -> Spec:
    """The Spec of all `stores`, which give their episodes in its ranges from now on.

    Ranges that were only seen (`Channel.seen`) are made so wide that they hold those of every store; raises where
    anything else differs, but for the time limit and, with `state_only`, the cameras.
    """
    spec = stores[0].spec
    for store in stores[1:]:
        names = f"the store {stores[0].path}", f"the store {store.path}"
        spec = spec.joined(store.spec, *names, state_only=state_only)
    for store in stores:
        store.express(spec)
    return spec
