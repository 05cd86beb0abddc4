"""The promotion gate: what is worse than the base on the same start states never becomes the best."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot_rl.evaluate import summary
from robot_rl.promote import compare, promote


def result(wins):
    rows = [
        {"seed": i, "success": win, "length": 10, "best_score": float(win), "roughness": 0.0}
        for i, win in enumerate(wins)
    ]
    return {"summary": summary(rows), "episodes": rows}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_gains_and_losses_are_the_difference_of_successes(pairs):
    base, refined = (result(wins) for wins in zip(*pairs, strict=True))
    told = compare(base, refined)
    assert told["gained"] - told["lost"] == refined["summary"]["successes"] - base["summary"]["successes"]
    assert told["gained"] + told["lost"] == sum(a != b for a, b in pairs) and 0 < told["p"] <= 1


@pytest.mark.parametrize(
    ("candidates", "promoted"),
    [
        ({"a": "++--"}, "a"),  # as good as the base
        ({"a": "+---"}, "base"),
        ({"a": "+++-", "b": "----"}, "a"),
        ({"a": "+++-", "b": "++++"}, "b"),
        ({}, "base"),
    ],
)
def test_the_best_that_is_not_worse_is_promoted(candidates, promoted, tmp_path):
    results = {label: result([c == "+" for c in wins]) for label, wins in {"base": "--++", **candidates}.items()}
    files = {label: tmp_path / f"{label}.pt" for label in results}
    for label, file in files.items():
        file.write_text(label)
    assert promote(tmp_path, files.pop("base"), results, files) == promoted
    assert (tmp_path / "best.pt").read_text() == promoted
    assert json.loads((tmp_path / "promotion.json").read_text())["promoted"] == promoted


def test_the_p_value_is_the_sign_tests():
    told = compare(result([True] * 6), result([False] * 5 + [True]))
    assert told == {"gained": 0, "lost": 5, "p": 1 / 32}
