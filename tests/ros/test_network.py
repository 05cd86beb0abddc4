"""F19, in a process that has not seen another network: see network_cases.py."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.ros.conftest import ROOT


@pytest.mark.timeout(400)
def test_fault_f19_a_network_that_loses_delays_and_is_cut(domain):
    command = [sys.executable, "-m", "pytest", "-q", "-rPs", "-p", "no:cacheprovider", "tests/ros/network_cases.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    if reason := re.search("NOT TESTED.*", done.stdout):
        pytest.skip(reason[0])
    assert done.returncode == 0 and "5 passed" in done.stdout
