"""A state that is loaded fits who loads it: names, shapes and types are compared before anything is built or changed.

A net is first built on PyTorch's "meta" device, which has shapes and no memory: a config that asks for 2e9 units then
costs nothing, and what its weights should look like is known before it is made for real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from robot_rl import configs
from robot_rl.types import RobotRLError

LARGEST = 10**7  # a number of a config: nothing that is counted in one is larger
DEEPEST = 1000  # layers
MOST_COUNTED = 10**12  # steps or updates
LOUDEST = 1e6  # times the largest number of the own weights, or 1: above that a float32 net has lost its meaning
GARBAGE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    MemoryError,
)


def built(
    data: Any, known: Sequence[type], build: Callable[[Any], Any], like: Callable[[Any], Any], origin: str
) -> Any:
    """What `build` makes of the config in `data`, once `like` found that the one without memory fits.

    Raises RobotRLError, which begins with `origin`, for a config that cannot be built.
    """
    try:
        config = configs.from_data(data, known)
        _require_modest(data)
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):
                shape = build(config)
            like(shape)
        return build(config)
    except RobotRLError as error:
        raise RobotRLError(f"{origin}: {error}") from error
    except GARBAGE as error:
        raise RobotRLError(
            f"{origin}: its config makes no net ({type(error).__name__}: {error}); train it again or use another"
        ) from error


def loaded(agent: Any, state: Any, origin: str) -> None:
    """Load a state into an agent or net; where that fails, the one before is put back and RobotRLError raised."""
    before = deepcopy(agent.state_dict())
    try:
        agent.load_state_dict(state)
    except GARBAGE as error:
        agent.load_state_dict(before)
        raise RobotRLError(f"{origin} does not fit ({type(error).__name__}: {error}); the old state is kept") from error


def restores(method: Callable[..., None]) -> Callable[..., None]:
    """Decorates a `load_state_dict`: what a whole checkpoint of another run raises becomes a RobotRLError."""

    @wraps(method)
    def restored(self: Any, *given: Any) -> None:
        try:
            method(self, *given)
        except GARBAGE as error:
            raise RobotRLError(
                f"the checkpoint does not fit what goes on from it ({type(error).__name__}: {error}): it is of another "
                "run, or of another version; put back its own, or begin a new run"
            ) from error

    return restored


def require_like(theirs: Any, mine: Any, name: str = "") -> None:
    """Raise RobotRLError unless the nested state `theirs` has the names, shapes and types of `mine`.

    The state of an optimiser, which has none before its first step, is held against its parameters alone.
    """
    if isinstance(mine, Tensor):
        found = (tuple(theirs.shape), theirs.dtype) if isinstance(theirs, Tensor) else _kind(theirs)
        if found != (tuple(mine.shape), mine.dtype):
            _refuse(name, found, (tuple(mine.shape), mine.dtype))
    elif isinstance(mine, dict):
        _require_keys(theirs, mine, name)
        if set(mine) == {"state", "param_groups"}:
            _require_optimizer(theirs, mine, name)
        else:
            for key, value in mine.items():
                require_like(theirs[key], value, f"{name}.{key}" if name else str(key))
    elif isinstance(mine, (list, tuple)):
        if not isinstance(theirs, (list, tuple)) or len(theirs) != len(mine):
            _refuse(name, _kind(theirs), f"{len(mine)} values")
        for i, pair in enumerate(zip(theirs, mine, strict=True)):
            require_like(*pair, f"{name}.{i}")
    else:
        _require_count(theirs, mine, name)


def require_quiet(theirs: Any, mine: Any) -> None:
    """Raise RobotRLError where a weight is absurdly large: finite, but a net that computes with it is not."""
    own = dict(tensors(mine))
    for name, tensor in tensors(theirs):
        if "optimizer" in name or not tensor.is_floating_point() or not tensor.numel():
            continue
        bound = LOUDEST * max(1.0, float(own[name].abs().max()))
        if (largest := float(tensor.abs().max())) > bound:
            raise RobotRLError(f"weight {name} reaches {largest:.3g}, and at most {bound:.3g} is plausible")


def tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested state, each with its dotted name."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, (list, tuple)):
        for i, value in enumerate(state):
            yield from tensors(value, f"{name}.{i}")


def is_format(data: Any, key: str, number: int) -> bool:
    """Whether a file's table says of itself that it is of the format `number` of `key`."""
    return isinstance(data, dict) and type(data.get(key)) is int and data[key] == number


def require_parts(data: Any, parts: Sequence[str], origin: str) -> None:
    """Raise RobotRLError unless a file's table has these `parts`."""
    if not isinstance(data, dict) or any(part not in data for part in parts):
        raise RobotRLError(f"{origin} lacks {', '.join(parts)}: it is damaged, or no file of robot-rl; use another")


def _require_modest(data: Any) -> None:
    """Raise where a number of a config is beyond all reason."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(value, (dict, list, tuple)):
            _require_modest(value)
        elif isinstance(value, int) and abs(value) > (DEEPEST if key == "depth" else LARGEST):
            raise RobotRLError(f"its config asks for {key} {value:,}, which nothing has; train it again or use another")


def _require_keys(theirs: Any, mine: dict[str, Any], name: str) -> None:
    if not isinstance(theirs, dict):
        _refuse(name, _kind(theirs), f"a table of {', '.join(map(str, list(mine)[:5]))}")
    if missing := [key for key in mine if key not in theirs]:
        _refuse(f"{name}.{missing[0]}" if name else str(missing[0]), "missing", "what is there otherwise")
    if unknown := [key for key in theirs if key not in mine]:
        _refuse(f"{name}.{unknown[0]}" if name else str(unknown[0]), "unknown", "nothing")


def _require_optimizer(theirs: dict[str, Any], mine: dict[str, Any], name: str) -> None:
    """Of an optimiser: the same parameters in the same groups, and of each only tensors or counts."""
    groups = theirs["param_groups"]
    expected = [list(group["params"]) for group in mine["param_groups"]]
    found = [g.get("params") if isinstance(g, dict) else None for g in groups] if isinstance(groups, list) else []
    whole = all(isinstance(indices, list) and all(type(i) is int for i in indices) for indices in found)
    if not whole or found != expected:
        _refuse(f"{name}.param_groups", _kind(groups), f"groups of the parameters {str(expected):.60}")
    known = {index for group in expected for index in group}
    for index, held in theirs["state"].items() if isinstance(theirs["state"], dict) else [(None, None)]:
        if index not in known or not isinstance(held, dict) or not all(isinstance(v, Tensor) for v in held.values()):
            _refuse(f"{name}.state.{index}", _kind(held), "tensors of one of its parameters")


def _require_count(theirs: Any, mine: Any, name: str) -> None:
    """Raise unless a plain value is of the same type, and a number plausible."""
    if type(theirs) is not type(mine) or (isinstance(theirs, int) and not 0 <= theirs <= MOST_COUNTED):
        _refuse(name, f"{theirs!r:.40}", f"such as {mine!r:.40}")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, (list, dict)) else f"{len(value)} values"


def _refuse(name: str, found: Any, expected: Any) -> None:
    raise RobotRLError(f"{name or 'the state'} is {found}, not {expected}: it was made with other settings, or damaged")
