"""The launch files as ROS 2 reads them; the tests that need its `launch` say so where it is not there."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter
from glob import glob
from pathlib import Path
from xml.etree import ElementTree

import pytest

from robot_rl.cli import VERBS
from robot_rl.types import RobotRLError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EVERY = {"robot", "namespace", "use_sim_time", "params_file", "log_level"}
ARGUMENTS = {
    "robot": EVERY,
    "sim": EVERY | {"checkpoint", "device", "out", "autostart", "words", "seed"},
    "deploy": EVERY | {"checkpoint", "device", "out", "autostart", "words"},
    "collect": EVERY | {"out"},
    "refine": EVERY | {"checkpoint", "demos", "out", "role", "words"},
}
FR3, SIM = (str(LAUNCH / "params" / f"{name}.yaml") for name in ("fr3", "sim_panda_lift"))
ARM = f"drivers.arm_node --robot {FR3}"
CAMERAS = [f"drivers.camera_node --robot {FR3} --camera {name}" for name in ("wrist", "side")]


def strings(file: Path) -> list[str]:
    return [
        n.value
        for n in ast.walk(ast.parse(file.read_text()))
        if isinstance(n, ast.Constant) and n.value.__class__ is str
    ]


def test_the_folder_holds_launch_files_and_robots_only():
    assert {file.name.removesuffix(".launch.py") for file in FILES} == set(ARGUMENTS)
    assert not list(LAUNCH.rglob("__init__.py")), "it would shadow ROS 2's own launch"
    names = Counter(path.name for path in LAUNCH.rglob("*") if path.is_file() and path.suffix in (".py", ".yaml"))
    assert max(names.values()) == 1, "`ros2 launch robot_rl NAME` refuses two files of one name"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_it_names_exists(file):
    words = strings(file)
    for module in (word for word in words if word.startswith(("drivers.", "robot_rl."))):
        assert importlib.util.find_spec(module), module
    for verb in (after for word, after in zip(words, words[1:], strict=False) if word == "robot_rl.cli"):
        assert verb in VERBS
    for name in (word for word in words if word.endswith((".launch.py", ".yaml")) and " " not in word):
        assert list(LAUNCH.rglob(name)), name


def test_ros_finds_the_package():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    assert package.get("format") == "3"
    assert package.findtext("name") == "robot_rl"
    assert package.findtext("version") == PROJECT["project"]["version"]
    assert package.findtext("license") == PROJECT["project"]["license"]
    assert package.findtext("export/build_type") == "ament_python"
    data = PROJECT["tool"]["setuptools"]["data-files"]
    assert data["share/ament_index/resource_index/packages"] == ["resource/robot_rl"]
    installed = {(place, file) for place, patterns in data.items() for p in patterns for file in glob(p, root_dir=ROOT)}
    for file in (*FILES, *LAUNCH.glob("params/*.yaml"), ROOT / "package.xml"):
        own = file.relative_to(ROOT)
        assert (f"share/robot_rl/{own.parent}".removesuffix("/."), str(own)) in installed


def test_every_ros_package_that_is_imported_is_declared():
    package = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in package.findall("exec_depend")}
    sources = [*FILES, *(file for room in ("robot_rl", "drivers", "sim") for file in (ROOT / room).rglob("*.py"))]
    nodes = [node for file in sources for node in ast.walk(ast.parse(file.read_text()))]
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    tops = {module.split(".")[0] for module in modules}
    ours = ("_msgs", "_interfaces", "_srvs", "rclpy", "launch", "launch_ros")
    assert {top for top in tops if top.endswith(ours)} <= declared


def described(name: str):
    pytest.importorskip("launch_ros", reason="ROS 2's launch is not installed, and PyPI has no wheel of it")
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    return get_launch_description_from_python_launch_file(str(LAUNCH / f"{name}.launch.py"))


@pytest.fixture
def started(monkeypatch):
    """The command lines of the processes that a launch file would start: those of Python, and what ROS gets of each."""

    def commands(name: str, **arguments: str) -> dict[str, str]:
        entities = [described(name)]
        from launch import LaunchContext
        from launch.actions import ExecuteLocal

        found = []
        monkeypatch.setattr(ExecuteLocal, "execute", lambda action, context: found.append(command(action, context)))
        context = LaunchContext()
        context.launch_configurations.update(arguments)
        while entities:
            entities = [*(entities[0].visit(context) or []), *entities[1:]]
        return dict(found)

    return commands


def command(action, context) -> tuple[str, str]:
    action.prepare(context)
    python, minus_m, *words = action.process_description.final_cmd
    assert (python, minus_m) == (sys.executable, "-m")
    at = words.index("--ros-args")
    return " ".join(words[:at]), " ".join(words[at:])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_declared_and_described(name):
    arguments = described(name).get_launch_arguments()
    assert {argument.name for argument in arguments} == ARGUMENTS[name]
    assert all(argument.description and argument.description != "no description given" for argument in arguments)


def test_on_a_laptop(started):
    deploy = f"robot_rl.cli deploy --robot {SIM} --agent runs/x --autostart"
    arm, simulate = f"drivers.arm_node --robot {SIM}", f"robot_rl.cli simulate --robot {SIM} --seed 3"
    assert list(started("sim", checkpoint="runs/x", seed="3")) == [arm, deploy, simulate]


def test_on_the_robot(started):
    deploy = f"robot_rl.cli deploy --robot {FR3} --agent best.pt --no-autostart --device cuda --out data/x --episodes 2"
    given = {"checkpoint": "best.pt", "device": "cuda", "out": "data/x", "words": "--episodes 2", "autostart": "false"}
    assert list(started("deploy", robot=FR3, **given)) == [ARM, *CAMERAS, deploy]


def test_a_person_demonstrates(started):
    recorder = f"drivers.recorder --robot {FR3} --out data/x"
    assert list(started("collect", robot=FR3, out="data/x")) == [ARM, *CAMERAS, recorder]


def test_practice_on_two_machines(started):
    paths = {"robot": FR3, "checkpoint": "base", "demos": "data/x", "out": "runs/x", "words": "--steps 9 agent:dsrl"}
    words = f"--robot {FR3} --policy base --demos data/x --out runs/x --steps 9 agent:dsrl"
    assert list(started("refine", role="learner", **paths)) == [f"robot_rl.cli refine --role learner {words}"]
    actor = f"robot_rl.cli refine --role actor {words}"
    assert list(started("refine", role="actor", **paths)) == [ARM, *CAMERAS, actor]


@pytest.mark.parametrize("name", ["sim", "deploy"])
def test_every_node_has_the_namespace_the_parameters_and_the_log_level(started, tmp_path, name):
    parameters = tmp_path / "parameters.yaml"
    parameters.write_text("/**:\n  ros__parameters: {}\n")
    ros = {"namespace": "left", "use_sim_time": "true", "params_file": str(parameters), "log_level": "debug"}
    nodes = started(name, robot=FR3, checkpoint="best.pt", **ros)
    for words in nodes.values():
        for part in ("__ns:=/left", "-p use_sim_time:=True", f"--params-file {parameters}", "--log-level debug"):
            assert part in words
    assert all("__ns:=/ " in words for words in started(name, robot=FR3, checkpoint="best.pt").values())


def test_a_robot_or_parameters_that_are_not_there_are_named(started):
    with pytest.raises(RobotRLError, match="absent.yaml cannot be read"):
        started("robot", robot="absent.yaml")
    with pytest.raises(RuntimeError, match="no params_file absent.yaml"):
        started("robot", robot=FR3, params_file="absent.yaml")
    with pytest.raises(RuntimeError, match='argument "robot" was not provided'):
        started("deploy", checkpoint="best.pt")
