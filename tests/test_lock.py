"""`make lock` and `make locked`: what pip would install is written with its hash, and nothing else is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCK = ROOT / ".ci" / "lock.py"
OFFLINE = ("--no-index", "--find-links")
WHEEL = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(folder: Path, content: str = "1") -> Path:
    """A wheel of one module."""
    folder.mkdir(exist_ok=True)
    path, about = folder / "tiny_thing-1.0-py3-none-any.whl", "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_thing.py", content)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", WHEEL)
        archive.writestr(f"{about}/RECORD", "")
    return path


def pip(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "install", "--quiet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_was_locked_is_installed_and_a_file_of_another_content_is_not(tmp_path):
    wheel(tmp_path / "wheels")
    lock = tmp_path / "requirements.lock"
    subprocess.run([sys.executable, LOCK, lock, *OFFLINE, tmp_path / "wheels", "tiny-thing"], check=True)
    assert lock.read_text().startswith("tiny-thing==1.0 --hash=sha256:")
    given = ("--require-hashes", "--no-deps", *OFFLINE, tmp_path / "wheels", "--requirement", lock, "--target")
    assert pip(*given, tmp_path / "first").returncode == 0
    assert (tmp_path / "first" / "tiny_thing.py").exists()
    wheel(tmp_path / "wheels", "another")
    refused = pip(*given, tmp_path / "second")
    assert refused.returncode and "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (tmp_path / "second" / "tiny_thing.py").exists()


def test_a_package_without_a_hash_is_named():
    spec = importlib.util.spec_from_file_location("lock", LOCK)
    lock = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lock)
    report = {
        "install": [
            {"metadata": {"name": "ours", "version": "1"}, "download_info": {"dir_info": {"editable": True}}},
            {"metadata": {"name": "Some", "version": "2"}, "download_info": {"archive_info": {"hashes": {}}}},
        ]
    }
    with pytest.raises(SystemExit, match="no SHA-256 of Some==2"):
        lock.lines(report)
