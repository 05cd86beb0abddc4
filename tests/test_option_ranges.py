"""Laws of numbers: each that a verb takes has a range, and outside of it nothing is done and the option is named."""

from __future__ import annotations

import inspect
import math
import time
import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_rl import configs, ranges
from robot_rl.agents.residual import ResidualConfig
from robot_rl.cli import VERBS, main
from robot_rl.types import RobotRLError

NUMBERS = [(verb, *number) for verb, call in VERBS.items() for number in ranges.numbers_of(call, verb)]


def classes(hint) -> set[type]:
    """The config classes in a type, those in their fields too."""
    if hasattr(hint, "__metadata__"):
        hint = typing.get_args(hint)[0]
    if is_dataclass(hint):
        inner = typing.get_type_hints(hint, include_extras=True).values()
        return {hint}.union(*map(classes, inner))
    return set().union(*map(classes, typing.get_args(hint)))


CONFIGS = {
    c.__name__: c
    for verb in VERBS.values()
    for hint in typing.get_type_hints(verb, include_extras=True).values()
    for c in classes(hint)
}


def test_every_number_of_every_verb_has_a_range():
    """Of signatures and config classes as they are: whoever adds a number meets this."""
    assert len({option for _, option, *_ in NUMBERS}) >= 100 and len(CONFIGS) >= 20
    for _, _, owner, name in NUMBERS:
        ranges.range_of(owner, name)
    with pytest.raises(LookupError, match="ranges.py"):
        ranges.range_of("Somebody", "forgotten")


def test_no_range_is_of_a_number_that_is_not_there():
    owners = {owner for *_, owner, _ in NUMBERS}
    names = {name for *_, name in NUMBERS}
    for key in ranges.TABLE:
        owner, _, name = key.rpartition(".")
        assert name in names and (not owner or owner in owners), key


def test_defaults_lie_in_their_ranges():
    for made in CONFIGS.values():
        ranges.require(made())
    for verb, call in VERBS.items():
        for name, parameter in inspect.signature(call).parameters.items():
            if not is_dataclass(parameter.default):
                ranges.require_value(name, parameter.default, verb)


def outside(allowed: ranges.Range) -> st.SearchStrategy[float]:
    """Numbers that it does not hold; whole ones and halves."""
    below, above = math.nextafter(allowed.low, -math.inf), math.nextafter(allowed.high, math.inf)
    odd = [math.nan, math.inf, -math.inf, below, above, allowed.low - 1, allowed.high + 1, -1e18, 1e18]
    odd += [allowed.low] * allowed.above + [allowed.high] * allowed.below
    return st.sampled_from(odd)


@given(st.sampled_from(NUMBERS), st.data())
@settings(max_examples=300, deadline=None)
def test_fault_f57_a_number_out_of_its_range_is_named_before_anything_is_done(number, data):
    verb, option, owner, name = number
    allowed = ranges.range_of(owner, name)
    value = data.draw(outside(allowed))
    with pytest.raises(RobotRLError) as error:
        if owner == verb:
            required = {
                n: Path("x") for n, p in inspect.signature(VERBS[verb]).parameters.items() if p.default is p.empty
            }
            ranges.checked(verb, VERBS[verb])(**required | {name: value})
        else:
            many = isinstance(getattr(CONFIGS[owner](), name), tuple)
            wrong = replace(CONFIGS[owner](), **{name: (value,) if many else value})
            ranges.require(wrong, option.removesuffix(name.replace("_", "-")))
    assert str(error.value) == f"{option} is {value}; it must be {allowed}"


@given(st.sampled_from(NUMBERS), st.data())
@settings(max_examples=200, deadline=None)
def test_a_number_in_its_range_passes(number, data):
    *_, owner, name = number
    allowed = ranges.range_of(owner, name)
    value = data.draw(st.floats(allowed.low, allowed.high, exclude_min=allowed.above, exclude_max=allowed.below))
    assert ranges.require_value(name, value, owner) == value


WRONG = [
    ("demo", "--workers 0"),
    ("collect", "--image-size -5"),
    ("collect", "--max-steps 0"),
    ("collect", "--episodes 0"),
    ("pretrain", "--store s --learning-rate nan"),
    ("pretrain", "--store s --threads 0"),
    ("pretrain", "--store s --evaluate -3"),
    ("pretrain", "--store s policy:flow policy.backbone:mlp-config --policy.backbone.dropout 1"),
    ("pretrain", "--store s policy:flow policy.vision:vision-config policy.vision.encoder:vit-config "
     "--policy.vision.encoder.features 0"),
    ("reward", "--store s --false-alarms inf"),
    ("refine", "--policy p --demos d --utd -1"),
    ("refine", "--policy p --demos d --human.rate 2"),
    ("refine", "--policy p --demos d agent:dsrl --agent.learning-rate -1"),
    ("distil", "--agent a --demos d --episodes 0"),
    ("evaluate", "--agent a --execute 0"),
    ("evaluate", "--agent a --max-steps -3"),
    ("evaluate", "--agent a --seed 1000000000000000000"),
    ("inspect", "--store s --video-of -1"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "words"), WRONG)
def test_the_command_line_names_the_option_in_one_line_at_once(verb, words, tmp_path, capsys):
    started = time.process_time()
    assert main([verb, *words.split(), "--out", str(tmp_path / "out")] if verb != "pretrain" and verb != "refine" else
                [verb, "--out", str(tmp_path / "out"), *words.split()]) == 2  # fmt: skip
    said = capsys.readouterr().err
    *_, option, value = words.split()
    assert said.startswith(f"robot-rl: {option} is ") and said.count("\n") == 1
    assert time.process_time() - started < 2 and not list(tmp_path.iterdir())


def test_a_checkpoint_of_senseless_numbers_is_refused():
    data = configs.to_data(ResidualConfig()) | {"execute": -1}
    with pytest.raises(RobotRLError, match="ResidualConfig: execute is -1; it must be at least 1"):
        configs.from_data(data, [ResidualConfig])


def test_every_config_of_a_verb_is_looked_into():
    """By value, as a verb is called: a config in a config in a config."""
    deepest = [f.name for f in fields(CONFIGS["VitConfig"])]
    vit = replace(CONFIGS["VitConfig"](), **{deepest[0]: 0})
    flow = replace(CONFIGS["FlowConfig"](), vision=replace(CONFIGS["VisionConfig"](), encoder=vit))
    with pytest.raises(RobotRLError, match=rf"--policy.vision.encoder.{deepest[0]} is 0"):
        ranges.require(flow, "--policy.")
