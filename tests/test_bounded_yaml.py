"""YAML that attacks, and YAML that means something else than it looks like: refused within a second, in one line."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import bag
from drivers.robot_file import load
from robot_rl import bounded_yaml
from robot_rl.types import RobotRLError
from tests.test_robot_file import PARAMS

LEVELS = "abcdefghij"
ALIASES = "".join(
    f"{name}: &{name} [{','.join([f'*{LEVELS[i - 1]}'] * 10 if i else ['x'] * 10)}]\n" for i, name in enumerate(LEVELS)
)
MAPS = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(9)) + "}\n" for i in range(1, 9)
)
MERGES = "b0: &b0 {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 9)}]}}\n" for i in range(1, 9))
BOMBS = {
    "aliases of aliases": (ALIASES, "more than 20000 values"),
    "maps of aliases": (MAPS, "more than 20000 values"),
    "merges of merges": (MERGES, "more than 20000 values"),
    "a list in itself": ("a: &a [*a]", "stands for nothing that is complete"),
    "a map in itself": ("a: &a {b: *a}", "stands for nothing that is complete"),
    "an alias of nothing": ("a: *b", "alias"),
    "lists in lists": ("a: " + "[" * 100_000, "more than 32 lists and maps"),
    "maps in maps": ("{a: " * 50_000, "more than 32 lists and maps"),
    "blocks in blocks": ("".join(" " * i + "a:\n" for i in range(700)), "more than 32 lists and maps"),
    "many values": ("a: [" + "1," * 30_000 + "]", "more than 20000 values"),
    "a long file": ("a: " + "x" * 300_000, "longer than 256 kiB"),
    "a long number": ("a: " + "9" * 100_000, "no plain whole number"),
    "a code": ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "no date": ("a: 2001-99-99", "month must be in"),
    "a list as a key": ("? [a, b]\n: 1", "unhashable key"),
    "a key twice": ("limits: {speed: 0.25, speed: 2.5}", "'speed' is given twice"),
    "octal": ("rate: 010", "'010' is no plain whole number"),
    "base 60": ("rate: 1:30", "'1:30' is no plain whole number"),
    "NUL": ("a\x00b", "special characters"),
    "two documents": ("a: 1\n---\nb: 2", "expected a single document"),
}


@pytest.mark.parametrize("text, message", BOMBS.values(), ids=BOMBS)
def test_fault_f43_a_bomb_is_refused_at_once(tmp_path, text, message):
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    begin = time.monotonic()
    with pytest.raises(RobotRLError, match=message) as error:
        load(file)
    assert time.monotonic() - begin < 5.0, "mostly some milliseconds; a shared machine may be slow"
    assert str(file) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 1000


def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "absent", "a\x00b"):
        with pytest.raises(RobotRLError, match="cannot be read"):
            bounded_yaml.read(tmp_path / name, "the robot's file")


def test_a_bag_whose_metadata_is_a_bomb_is_refused(tmp_path):
    (tmp_path / "metadata.yaml").write_text(MAPS)
    begin = time.monotonic()
    with pytest.raises(RobotRLError, match="metadata.yaml is no YAML: more than 400000 values"):
        next(bag.episodes(tmp_path, load(PARAMS / "fr3.yaml"), "fr3.yaml"))
    assert time.monotonic() - begin < 5.0


def test_anchors_that_stand_for_little_are_read(tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("a: &a {height: 480, width: 640}\nb: {<<: *a, width: 320}\nc: [*a, *a]\nd: [0x10, 1.5, 007.5, 0]")
    assert bounded_yaml.read(file, "it") == {
        "a": {"height": 480, "width": 640}, "b": {"height": 480, "width": 320},
        "c": [{"height": 480, "width": 640}] * 2,
        "d": [16, 1.5, 7.5, 0],
    }  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab:&*<{}[]-,\n #!?|>'\"01"), max_size=60))
def test_whatever_is_written_is_read_or_refused(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text)
    try:
        load(file)
    except RobotRLError as error:
        assert str(file) in str(error)
    else:
        pytest.fail(f"{text!r} is no robot")
