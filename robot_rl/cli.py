"""The command line: with the other files of the ceiling, the place where worlds, policies and agents are joined."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports that take seconds
    from robot_rl.start import expect_interrupts

    expect_interrupts()

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg, subcommand

from drivers.node_process import split_ros_arguments
from drivers.web_tls import WebConfig, refuse_unused
from policies import checkpoint
from policies import reward as reward_file
from policies.diffusion import DiffusionConfig
from policies.flow import FlowConfig
from policies.mlp import MlpConfig
from policies.reward import ClassifierConfig
from robot_rl import apart, checkpoints, command_line, outputs, ranges, report, start
from robot_rl import demo as demonstrating
from robot_rl import distil as distilling
from robot_rl import evaluate as evaluating
from robot_rl import pretrain as pretraining
from robot_rl import refine as refining
from robot_rl import reward as rewarding
from robot_rl.agents.corrections import CorrectionsConfig
from robot_rl.agents.dsrl import DsrlConfig
from robot_rl.agents.expo import ExpoConfig
from robot_rl.agents.frozen import FrozenConfig
from robot_rl.agents.residual import ResidualConfig
from robot_rl.agents.rlpd import RlpdConfig
from robot_rl.agents.taco import TacoConfig
from robot_rl.data_verbs import collect, export, import_, inspect, spec_of, view
from robot_rl.demo import DemoConfig, Parts
from robot_rl.episodes import EpisodeStore
from robot_rl.judged import Judged
from robot_rl.pretrain import PretrainConfig
from robot_rl.promote import play_and_promote
from robot_rl.refine import RefineConfig
from robot_rl.reward import RewardConfig
from robot_rl.robot_verbs import check, deploy, practice_in, practice_on, simulate
from robot_rl.types import Agent, Env, Policy, RobotRLError, Spec
from sim import worlds
from sim.human import HumanConfig
from sim.worlds import WatchedConfig, WorldConfig

Flat = arg(name="")  # the fields of a config without a prefix
Refiner = (
    Annotated[ResidualConfig, subcommand("residual")]
    | Annotated[DsrlConfig, subcommand("dsrl")]
    | Annotated[RlpdConfig, subcommand("rlpd")]
    | Annotated[CorrectionsConfig, subcommand("corrections")]
    | Annotated[ExpoConfig, subcommand("expo")]
    | Annotated[TacoConfig, subcommand("taco")]
)
Choice = Annotated[FlowConfig, subcommand("flow")] | Annotated[DiffusionConfig, subcommand("diffusion")]

DEMOS = {
    "robosuite:Lift": DemoConfig(
        policy=FlowConfig(backbone=MlpConfig(width=256, depth=2)),
        agent=ResidualConfig(scale=0.5, gripper_scale=1.5, width=128, heads=5, critic_only=5000),
        pretrain=PretrainConfig(steps=1500, batch=128, warmup=200),
        # UTD 2 and 5 heads, half the defaults, keep the whole demo within minutes on 2 cores.
        refine=RefineConfig(steps=30_000, base_steps=5000, first_updates=5000, utd=2),
        demonstrations=14,
        skill=0.4,
    ),
    "toy": DemoConfig(
        policy=FlowConfig(horizon=8, backbone=MlpConfig(width=64, depth=2)),
        agent=ResidualConfig(
            execute=4,
            scale=0.3,
            n_step=3,
            penalty=0.01,
            heads=4,
            width=64,
            batch=128,
            critic_only=300,
            actor_learning_rate=3e-4,
            critic_learning_rate=1e-3,
        ),
        pretrain=PretrainConfig(steps=600, batch=64, warmup=50, save_every=200),
        refine=RefineConfig(steps=3000, base_steps=500, first_updates=300, utd=2, threads=1),
        demonstrations=60,
        skill=0.3,
    ),
}


def demo(
    out: Path = Path("runs/demo"), world: str = "robosuite:Lift", seed: int = 0, workers: int = 2, videos: bool = True
) -> None:
    """Demonstrations in, a better policy out: collect, pretrain, refine, evaluate both, report.

    Args:
        out: folder of the run; run again with the same folder to resume
        world: robosuite:Lift, or toy, which takes a minute
        seed: of demonstrations, training, practice and evaluation
        workers: processes that play episodes
        videos: film base and refined side by side
    """
    if world not in DEMOS:
        raise RobotRLError(f"there is no demo of '{world}'; there are: {', '.join(DEMOS)}")
    chosen, preset = WorldConfig(world), DEMOS[world]
    spec = spec_of(chosen)
    config = replace(
        preset,
        pretrain=replace(preset.pretrain, seed=seed),
        refine=replace(preset.refine, seed=seed),
        videos=preset.videos if videos else 0,
    )
    parts = Parts(
        spec=spec,
        make_env=chosen.build,
        make_operator=partial(worlds.operator_for, spec, config.skill),
        make_agent=partial(_fresh_agent, config.agent),
        save_policy=checkpoint.save,
        save_agent=checkpoints.save_agent,
        load_agent=checkpoints.load_agent,
    )
    with outputs.folder(out):
        page = demonstrating.demo(out, config, parts, seed=seed, workers=workers)
    print(f"report: {page.resolve()}")


def pretrain(
    out: Path,
    store: tuple[Path, ...],
    policy: Choice = FlowConfig(),
    config: Annotated[PretrainConfig, Flat] = PretrainConfig(),
    evaluate: int = 0,
    workers: int = 2,
) -> None:
    """Imitate the demonstrations of a store with a diffusion or flow policy; the same folder resumes.

    Args:
        out: folder of the run
        store: the store of episodes to imitate, or several
        policy: what to train
        config: how to train it
        evaluate: start states to play with the finished policy
        workers: processes that play them
    """
    with outputs.folder(out):
        if evaluate:
            _require_playable(EpisodeStore.open(store[0]).spec, policy.vision is not None)
        file = pretraining.pretrain(out, store, policy, config, checkpoint.save)
        evaluations = {}
        if evaluate:
            world = _world_of(checkpoint.load(file))
            evaluations["policy"] = evaluating.evaluate_once(
                out / "evaluation.json",
                world.build,
                partial(checkpoints.load_agent, file),
                episodes=evaluate,
                workers_=workers,
                label="policy",
            )
        page = report.Report(f"pretrain {out}", evaluations, (out / "metrics.jsonl",)).write(out / "report.html")
    print(f"policy: {file}\nreport: {page}")


def refine(
    out: Path,
    policy: Path,
    demos: tuple[Path, ...],
    agent: Refiner = ResidualConfig(),
    config: Annotated[RefineConfig, Flat] = RefineConfig(),
    human: HumanConfig = HumanConfig(),
    role: Literal["both", "actor", "learner"] = "both",
    robot: Path | None = None,
    teleop: str | None = None,
    web: WebConfig = WebConfig(),
    reward: Path | None = None,
    evaluate: int = 100,
    videos: int = 3,
    workers: int = 2,
) -> None:
    """Let a policy practise and refine it in one of six ways; the same folder resumes.

    At the end base, snapshots and refined agent play the same start states; what is not worse than the base becomes
    best.pt.

    Args:
        out: folder of the run
        policy: the base: a policy's file, the folder of its pretrain run, or the run of a refiner that trains it
        demos: the store of demonstrations to learn from beside practice, or several: other agents' practice too
        agent: how it is refined
        config: how to practise
        human: who watches practice, and helps
        role: play and learn in turn; or only play, or only learn, with another process in the same folder
        robot: practise on the robot of this YAML file, or on its simulated stand-in, instead of in the base's world
        teleop: a person's device, who may take over at any moment: keyboard, gamepad, ...; see docs/teleop.md
        web: how the web page is served, where it is that device
        reward: a classifier by `robot-rl reward` that says in practice what success is; the world does where not given
        evaluate: start states on which base and refined are compared at the end; 0: none
        videos: of those, how many to film side by side
        workers: processes that play them
    """
    with outputs.folder(out, {"actor": (outputs.PLAY,), "learner": (outputs.LEARN,)}.get(role, outputs.WHOLE)):
        base = checkpoints.load_base(policy)
        if evaluate and role != "actor":
            _require_playable(base.spec, base.sees_images)
        about = {"agent": agent, "policy": str(policy.resolve()), "human": human}
        about |= {"reward": str(reward.resolve())} if reward else {}
        made_of = [checkpoints.file_of(policy), *([] if reward is None else [reward_file.file_of(reward)])]
        make_agent = partial(_fresh_agent, agent, policy)
        practice = _practice(policy, config, human, robot, teleop, reward, web)
        if role == "actor":
            apart.act(out, demos, practice, make_agent, config, about, made_of)
            return
        if role == "learner":
            file = apart.learn(out, demos, make_agent, config, about, checkpoints.save_agent, made_of)
        else:
            file = refining.refine(out, demos, practice, make_agent, config, about, checkpoints.save_agent, made_of)
        if evaluate:
            unrefined = out / "base.pt"
            in_its_rhythm = FrozenConfig(agent.execute)  # the refined agent's
            checkpoints.save_agent(in_its_rhythm.build(base), unrefined)
            _compare(out, file, report.Comparison(out, _world_of(base).build, evaluate, workers=workers), videos)


def _compare(out: Path, file: Path, comparison: report.Comparison, videos: int) -> None:
    """Let base.pt, the snapshots and the refined agent `file` of a run play the same start states, and tell it."""
    files = {f"{f.stem} steps": f for f in sorted(out.glob("snapshots/*.pt"), key=lambda f: int(f.stem))}
    promoted = play_and_promote(comparison, out / "base.pt", {**files, "refined": file}, checkpoints.load_agent)
    page = comparison.report(f"refine {out}", (out / "metrics.jsonl",), videos)
    print(f"agent: {file}\nbest.pt: {promoted}\nreport: {page}")


def reward(
    out: Path,
    store: tuple[Path, ...],
    negatives: Path | None = None,
    classifier: Annotated[ClassifierConfig, Flat] = ClassifierConfig(),
    config: Annotated[RewardConfig, Flat] = RewardConfig(),
) -> None:
    """Learn from pictures when a task is done; `refine --reward` goes by it.

    Args:
        out: folder of the run
        store: episodes with pictures, or several: the last rows of successful ones show success, all others do not
        negatives: a store of which no picture shows success, whatever its rewards say
        classifier: what to train
        config: how to train it, and how often it may be wrong
    """
    with outputs.folder(out):
        rewarding.train(out, store, negatives, classifier, config, reward_file.save)
    print(f"reward: {out / 'reward.pt'}")


def distil(
    out: Path,
    agent: Path,
    demos: tuple[Path, ...],
    config: Annotated[PretrainConfig, Flat] = PretrainConfig(),
    episodes: int = 100,
    evaluate: int = 100,
    workers: int = 2,
) -> None:
    """Turn what a refined agent learned into the next base: imitate its successful episodes beside demonstrations.

    Args:
        out: folder of the run
        agent: the refined agent: its file, or the folder of its refine run
        demos: the store of demonstrations, or several
        config: how to train; the policy is built as the agent's base was
        episodes: successful episodes of the agent to play
        evaluate: start states on which agent and policy are compared at the end; 0: none
        workers: processes that play
    """
    with outputs.folder(out):
        teacher, make_agent = checkpoints.load_agent(agent), partial(checkpoints.load_agent, agent)
        policy, make_env = teacher.policy, _world_of(teacher.policy).build
        _require_playable(policy.spec, policy.sees_images)
        spec = policy.spec if policy.sees_images else replace(policy.spec, cameras=())
        play = (spec, make_env, make_agent, policy.config, config, checkpoint.save, {"agent": str(agent.resolve())})
        made_of = [checkpoints.file_of(agent)]
        file = distilling.distil(out, demos, *play, episodes=episodes, workers_=workers, made_of=made_of)
        print(f"policy: {file}")
        if evaluate:
            comparison = report.Comparison(out, make_env, evaluate, workers=workers)
            comparison.play("agent", make_agent)
            comparison.play("distilled", partial(checkpoints.load_agent, file, teacher.config.execute))
            page = comparison.report(f"distil {out}", (out / "policy" / "metrics.jsonl",), videos=0)
            print(f"report: {page}")


def evaluate(
    agent: Path,
    world: str | None = None,
    arm: str | None = None,
    max_steps: int | None = None,
    episodes: int = 100,
    seed: int = 0,
    execute: int | None = None,
    workers: int = 2,
    ray: str | None = None,
    out: Path | None = None,
) -> None:
    """Play fresh start states with a policy or a refined agent.

    Args:
        agent: file of a policy or an agent, or the folder of the run that made it
        world: where to play; the world it was made in where not given
        arm: which arm; the one it was made with where not given
        max_steps: time limit of an episode [control steps]; its own where not given
        episodes: how many start states
        seed: of the start states: the same seed plays the same ones with every agent
        execute: actions of each chunk that a bare policy executes; 8 where not given
        workers: processes that play
        ray: a Ray cluster that plays instead: auto, or HOST:PORT
        out: file for the result, as JSON
    """
    if out is not None:
        evaluating.require_replaceable(out)
    with nullcontext() if out is None else outputs.file(out):
        loaded = checkpoints.load_agent(agent, execute)
        spec = loaded.policy.spec
        asked = _asked_of(loaded.policy, world, arm, max_steps)
        names = f"the checkpoint {agent}, of {spec.world},", f"the world {asked.world}"
        spec.require(spec_of(asked), *names, state_only=not loaded.policy.sees_images, any_limit=True)
        play = partial(checkpoints.load_agent, agent, execute)
        result = evaluating.evaluate(asked.build, play, episodes=episodes, seed=seed, workers_=workers, ray=ray)
        print(evaluating.in_words(result), flush=True)  # before it is written: a full disk loses nothing
        if out is not None:
            evaluating.write(result, out)


def _require_playable(spec: Spec, sees: bool) -> None:
    """Raise unless the world that `spec` names can be built here and is as it says, before hours of training."""
    config = worlds.of_spec(spec)
    try:
        built = spec_of(config if sees else replace(config, cameras=(), image_size=None, shadows=None))
        spec.require(built, "what was recorded", "the world that can be built", state_only=not sees, any_limit=True)
    except RobotRLError as error:
        raise RobotRLError(f"nothing could be played at the end: {error}\n--evaluate 0 does without that") from error


def _world_of(policy: Policy, max_steps: int | None = None) -> WorldConfig:
    """The world that a policy was made in, with cameras where it sees pictures."""
    config = worlds.of_spec(policy.spec, max_steps)
    return config if policy.sees_images else replace(config, cameras=(), image_size=None, shadows=None)


def _asked_of(policy: Policy, world: str | None, arm: str | None, max_steps: int | None) -> WorldConfig:
    """The world that a policy was made in, or another that is asked for: of that only what is given is chosen."""
    own = _world_of(policy, max_steps)
    if world is None or world == own.world:
        return own if arm is None else replace(own, arm=arm)
    return WorldConfig(world, arm, max_steps=max_steps)


def _practice(
    policy: Path,
    config: RefineConfig,
    human: HumanConfig,
    robot: Path | None,
    teleop: str | None,
    reward: Path | None,
    web: WebConfig,
) -> Callable[[], Env]:
    """Where the base `policy` practises: in a world or on a robot, with or without a person, judged by whom."""
    refuse_unused(web, teleop)
    if teleop is not None and (config.overlap or human.skill is not None):
        raise RobotRLError(
            "with --teleop a person is beside practice, in this process: leave out overlap and human.skill"
        )
    if robot is not None and human.skill is not None:
        raise RobotRLError("the simulated human has no hands on a robot: leave out human.skill, or use --teleop")
    base = checkpoints.load_base(policy)
    if robot is not None:
        practice: Callable[[], Env] = partial(practice_on, robot, policy, teleop, web)
    else:
        world = _world_of(base) if reward is None else _world_that_shows(reward, base, policy)
        practice = WatchedConfig(world, human).build if teleop is None else partial(practice_in, world, teleop, web)
    return practice if reward is None else partial(_judged, practice, reward)


def _world_that_shows(reward: Path, base: Policy, policy: Path) -> WorldConfig:
    """The world of the `base` in the file `policy`, with the cameras of the classifier `reward`."""
    seen, names = reward_file.load(reward).spec, (f"the reward {reward}", f"the base {policy}")
    seen.require(base.spec, *names, state_only=not base.sees_images, any_limit=True)
    return worlds.of_spec(seen, base.spec.max_steps)


def _judged(make_env: Callable[[], Env], reward: Path) -> Env:
    classifier, env = reward_file.load(reward), make_env()
    classifier.spec.require(env.spec, f"the reward {reward}", "the world", any_limit=True)
    return Judged(env, classifier.reward)


def _fresh_agent(config: Any, policy: Path) -> Agent:
    return config.build(checkpoints.load_base(policy))


VERBS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "collect": collect,
    "import": import_,
    "export": export,
    "inspect": inspect,
    "pretrain": pretrain,
    "reward": reward,
    "refine": refine,
    "distil": distil,
    "evaluate": evaluate,
    "simulate": simulate,
    "check": check,
    "deploy": deploy,
    "view": view,
}
RESUMABLE = {"demo", "collect", "pretrain", "reward", "refine", "distil"}  # the same command goes on where it was


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; what the user can mend is said in one line. What follows --ros-args is ROS's."""
    arguments, _ = split_ros_arguments(sys.argv[1:] if arguments is None else arguments)
    verbs = {name: ranges.checked(name, verb) for name, verb in VERBS.items()}
    resumes = bool(arguments) and arguments[0] in RESUMABLE
    return start.guarded(lambda: command_line.parsed(verbs, arguments, __doc__ or "")(), resumes)


if __name__ == "__main__":
    sys.exit(main())
