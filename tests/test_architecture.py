"""The house: who may import whom, and how long a function may be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ("robot_rl", "policies", "drivers", "sim")
FILES = sorted(f for room in HOUSE for f in (ROOT / room).rglob("*.py"))
CEILING = {
    f"robot_rl/{name}.py" for name in ("cli", "data_verbs", "robot_verbs", "checkpoints", "imports")
}  # the last two: what is on disk
FLOOR = {
    f"robot_rl/{name}.py" for name in ("types", "geometry", "control", "rollout", "seeds", "statistics", "episodes")
}
OPTIONAL = {
    "rclpy", "pyrealsense2", "robosuite", "gym_pusht", "ray", "pyarrow", "rosbags", "rerun", "websockets", "pygame",
    "pyspacemouse",
}  # fmt: skip


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module}
    return found


def at_import(tree: ast.Module) -> set[str]:
    """What is imported when the file is, leaving out function bodies and TYPE_CHECKING blocks."""
    kept = [n for n in tree.body if not (isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test))]
    return {name for node in kept if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) for name in imports(node)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_rooms_keep_to_themselves(file):
    name = str(file.relative_to(ROOT))
    room = name.split("/")[0]
    tree = ast.parse(file.read_text())
    tops = {module.split(".")[0] for module in imports(tree)}
    if room != "robot_rl":
        assert not tops & (set(HOUSE) - {room, "robot_rl"}), "policies, drivers and sim never import one another"
    elif name not in CEILING:
        assert not tops & (set(HOUSE) - {room}), "only the ceiling joins the rooms"
    if room in ("drivers", "sim") or name in FLOOR:
        assert "torch" not in {m.split(".")[0] for m in at_import(tree)}, "no deep learning here"
    assert not {m.split(".")[0] for m in at_import(tree)} & OPTIONAL, "optional stacks are imported from build()"


def test_launch_never_shadows_ros():
    assert not (ROOT / "launch" / "__init__.py").exists()


def test_functions_stay_short():
    lengths = [
        (node.end_lineno - node.lineno + 1, f"{file.relative_to(ROOT)}:{node.lineno} {node.name}")
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths.sort(reverse=True)
    assert lengths[len(lengths) // 10][0] <= 33, lengths[:10]


def test_no_bare_except_and_no_drawer_for_odds_and_ends():
    for file in FILES:
        handlers = [n for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.ExceptHandler)]
        assert all(h.type is not None for h in handlers), file
        assert file.stem not in {"utils", "common", "helpers", "base", "manager", "core"}, file
