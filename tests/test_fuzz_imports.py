"""Damaged recordings: nothing but RobotRLError comes of them. Thousands: tests/benchmarks/fuzz_imports.py."""

import resource
import warnings

import pytest

from tests.fuzzing import SOURCES, fuzz


@pytest.mark.parametrize("kind", list(SOURCES))
def test_fault_f55_a_damaged_recording_is_read_or_refused_by_name(tmp_path, kind):
    if kind == "lerobot":
        pytest.importorskip("pyarrow", reason="pip install 'robot-rl[lerobot]'")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tally = fuzz(kind, 60, 1, tmp_path)
    assert not tally.broken, "\n".join(tally.broken[:3])
    assert tally.read > 0 and tally.refused > 10, "the damage must be worth something, and not all of it deadly"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20, "KiB"
