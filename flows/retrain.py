"""`talkingface retrain`, and what the deployments of prefect.yaml run: new films in, new weights out, the better one is champion.

* stages/inbox.py   films that were dropped into a folder
* reproduce.py      what of the graph is stale, up to each system's scores
* registry.py       the new checkpoint as a version of the system's model, and who is champion
* verdict.py        whether it takes the champion's place
* here              one after the other, at most one retraining at a time in this folder
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import RunStatus, ViewType
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.deployments import run_deployment
from prefect.states import Cancelled, Completed

from data.files import atomic_file
from flows import registry
from flows.registry import Version
from flows.reproduce import Outcome, StagesFailed, quiet_console, reproduce, tell
from flows.stale import Plan, plan
from flows.tracking import PARENT_RUN, trained_run_id
from flows.verdict import Better, Decision, Scores, decide, decide_first
from stages import inbox
from stages.engine import own_group
from stages.engine.slots import Held, Slots, machine
from stages.engine.workers import available_cores
from stages.params import WrongParams, output, section, work

EXPERIMENT = "retrain"
DECISION = "retrain.decision"  # tag of a version: what was decided, once it was
ON_DEMAND = "retrain/retrain-now"  # the deployment that `watch` starts
AT_THE_END = ("verify", "render", "report", "publish")  # stages that show what a champion makes, and of what it was made
SLOT_POLL_S = 1.0


@dataclass(frozen=True)
class Rule:
    """`retrain.systems.<system>` in params.yaml: when a new version of the system becomes champion."""

    metric: str  # of data/evaluation/<system>/metrics.json
    better: Better  # whether a higher or a lower score is the better one
    margin: float  # by so much it must be better than the champion, in the metric's unit, in the mean over held-out clips
    min_clips: int  # scored of both; fewer decide nothing
    baseline: str  # row of the same file that the first champion must beat


@dataclass(frozen=True)
class RetrainParams:
    """`retrain` in params.yaml."""

    inbox: str  # folder into which new films are dropped: <inbox>/<corpus>/film.mp4
    systems: dict[str, Rule]  # those that are retrained


@dataclass(frozen=True)
class Judged:
    """What was decided about a new version. champion: number of the version that it was compared with, None without any."""

    version: Version
    champion: int | None
    metric: str
    decision: Decision


class RetrainFailed(RuntimeError):
    """Some systems could not be retrained or judged; the others were."""


@flow(name="retrain")
def retrain(systems: list[str] | None = None) -> State[Any]:
    """Take new films, make what is stale up to the scores of these systems (None: all of params.yaml's), and judge what is new.

    Returns Completed, with the list of `Judged`, or Cancelled where another retraining is at work in this folder. Raises
    RetrainFailed in the end if a stage or a judgement failed.
    """
    quiet_console()
    if (alone := _alone()) is None:
        return Cancelled(message="another retraining is at work in this folder: wait until it ends")
    try:
        judged = _retrain(systems)
    finally:
        alone.give_back()
    names = ", ".join(f"{one.version.system} {'promoted' if one.decision.promoted else 'kept'}" for one in judged)
    return Completed(message=names or "nothing is new", data=judged)


@flow(name="watch-inbox")
def watch() -> State[Any]:
    """Starts the deployment `retrain-now` if there is anything for it: a film in the inbox, what is stale, what is not judged.

    What it has once asked for it does not ask for again until something else is new: a stage that fails is no reason to go on.
    """
    if (alone := _alone()) is None:
        return Completed(message="a retraining is at work")
    alone.give_back()  # at once: nobody's retraining is to be turned away for a look
    params = section("retrain", RetrainParams)
    films = [str(found.film) for found in inbox.look(Path(params.inbox)) if not found.why_not]
    systems = list(params.systems)
    stale = [[stage.name, stage.why] for stage in _plan(systems).stages or _unshown(systems).stages]
    unjudged = [system for system in systems if _unjudged(system)]
    asked, new = work("retrain", "asked.json"), json.dumps([films, stale, unjudged])
    if not films and not stale and not unjudged:
        asked.unlink(missing_ok=True)
        return Completed(message="nothing is new")
    if asked.exists() and asked.read_text() == new:
        return Completed(message="nothing is new since the last retraining was asked for")
    run_deployment(ON_DEMAND, timeout=0, as_subflow=False)
    asked.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(asked) as file:
        file.write(new.encode())
    new_ones = f"{len(films)} new films, {len(stale)} stale stages, {len(unjudged)} unjudged systems"
    return Completed(message=f"{ON_DEMAND} was asked for: {new_ones}")


def _alone() -> Held | None:
    """Held by one process of this folder at a time, until it ends in any way."""
    return Slots({}).take({}, alone="retraining")


def _plan(systems: list[str]) -> Plan:
    return plan(tell, [f"evaluate@{system}" for system in systems])


def _say(line: str) -> None:
    """To whoever reads the output, and to Prefect's server."""
    tell(line)
    get_run_logger().info(line)


def _retrain(systems: list[str] | None) -> list[Judged]:
    params = section("retrain", RetrainParams)
    chosen = list(params.systems) if systems is None else systems
    if unknown := [system for system in chosen if system not in params.systems]:
        raise WrongParams(f"params.yaml: retrain.systems has no {', '.join(unknown)}; it has {', '.join(params.systems)}")
    _end_dead_runs()
    found = inbox.look(Path(params.inbox))
    for one in found:
        if one.why_not:
            get_run_logger().warning(f"{one.film} is left: {one.why_not}")
            tell(f"{one.film} is left: {one.why_not}")
    for film in inbox.take(found):
        _say(f"{film} is new")
    stale = _plan(chosen)
    if not stale.stages and not any(map(_unjudged, chosen)) and not _unshown(chosen).stages:
        _say("nothing is stale, and all that was trained is judged")
        return []
    with _parent_run(chosen) as run_id:
        missing = _made(stale)
        states = {
            system: _judge.with_options(name=f"judge {system}")(system, params.systems[system], return_state=True)
            for system in chosen
            if f"evaluate@{system}" not in missing
        }
        results = {system: state.result(raise_on_failure=False) for system, state in states.items()}
        judged = [one for one in results.values() if isinstance(one, Judged)]
        failures = [f"{stage}: {why}" for stage, why in missing.items() if why]
        failures += [f"judging {system}: {one}" for system, one in results.items() if isinstance(one, BaseException)]
        failures += [f"{stage}: {why}" for stage, why in _made(_unshown(list(results))).items() if why]
        told = _report(judged, failures)
        create_markdown_artifact(told, key="retrain", description="what was retrained, and what became of it")
        mlflow.MlflowClient().log_text(run_id, told, "retrain.md")
        if failures:
            raise RetrainFailed("\n".join(failures))
    return judged


def _unjudged(system: str) -> bool:
    """Whether its present checkpoint, if it has one, was never decided about."""
    trained = trained_run_id(system)
    judged = (one.run_id for one in registry.versions(system) if decided(one) is not None)
    return trained is not None and trained not in judged


def decided(version: Version) -> str | None:
    """What was decided about a version, in words; None where nothing was."""
    return mlflow.MlflowClient().get_model_version(version.name, str(version.number)).tags.get(DECISION)


def _end_dead_runs() -> None:
    """Parent runs of retrainings that were killed: nobody else retrains in this folder."""
    client = mlflow.MlflowClient()
    if known := client.get_experiment_by_name(EXPERIMENT):
        for dead in client.search_runs([known.experiment_id], "attributes.status = 'RUNNING'", ViewType.ACTIVE_ONLY):
            client.set_terminated(dead.info.run_id, RunStatus.to_string(RunStatus.KILLED))


@contextmanager
def _parent_run(systems: list[str]) -> Iterator[str]:
    """An MLflow run below which the trainings stand; its id."""
    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
    run_id = client.create_run(experiment, run_name="-".join(systems)).info.run_id
    os.environ[PARENT_RUN] = run_id
    try:
        yield run_id
    except BaseException as error:
        status = RunStatus.FAILED if isinstance(error, Exception) else RunStatus.KILLED
        client.set_tag(run_id, "failure", f"{type(error).__name__}: {error}"[:1000])
        client.set_terminated(run_id, RunStatus.to_string(status))
        raise
    else:
        client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
    finally:
        del os.environ[PARENT_RUN]


def _made(stale: Plan) -> dict[str, str]:
    """Makes what is stale; the stages that are missing now, with the last words of those that failed."""
    if not stale.stages:
        return {}
    try:
        outcomes: list[Outcome] = reproduce(stale, available_cores(), tell)
    except StagesFailed as error:
        outcomes = error.outcomes
    return {one.stage: one.last_words for one in outcomes if one.state in ("failed", "not run")}


@task(cache_policy=NO_CACHE)
def _judge(system: str, rule: Rule) -> Judged | None:
    """Registers what was trained and decides about it, unless that was done before. Killed at any moment, it is done again."""
    if not _unjudged(system):
        return None
    version, champion = registry.register(system), registry.champion(system)
    metrics = json.loads((output("evaluation", system) / "metrics.json").read_text())
    challenger = _scores(metrics["clips"], rule.metric)
    if champion is None:
        own, baseline = metrics["own"].get(rule.metric), metrics["baselines"][rule.baseline].get(rule.metric)
        decision = decide_first(challenger, own, baseline, rule.min_clips, rule.better)
    elif champion.number == version.number:  # a kill came between its promotion and the tag
        decision = Decision(True, None, len(challenger), "it was promoted before this retraining was killed")
    else:
        decision = decide(_scores_of(champion, rule.metric), challenger, rule.margin, rule.min_clips, rule.better)
    if decision.promoted:
        registry.promote(version)
    else:
        registry.set_challenger(version)
    became = "the champion" if decision.promoted else "no more than challenger"
    mlflow.MlflowClient().set_model_version_tag(version.name, str(version.number), DECISION, f"{became}: {decision.why}")
    _say(f"{system}: version {version.number} is {became}: {decision.why}")
    return Judged(version, champion.number if champion else None, rule.metric, decision)


def _scores(clips: dict[str, dict[str, Any]], metric: str) -> Scores:
    return {key: row[metric] for key, row in clips.items()}


def _scores_of(champion: Version, metric: str) -> Scores:
    """The champion's on what is held out now: scored again if that, or how it is scored, is not what it was."""
    if champion.test_digest == registry.held_out_digest(champion.system):
        return _scores(registry.evaluation(champion)["clips"], metric)
    _say(f"{champion.system}: what is held out has changed: the champion, version {champion.number}, is scored again")
    folder = work("retrain", f"{champion.system}-{champion.number}")
    folder.mkdir(parents=True, exist_ok=True)
    scored = folder / "scores.json"
    _run("stages.rescore", champion.system, str(registry.checkpoint(champion, folder)), str(scored))
    return _scores(json.loads(scored.read_text()), metric)


def _run(module: str, *words: str) -> None:
    """A module as a command, on a GPU of its own where there is one; nothing of it outlives this process."""
    slots = Slots(machine(available_cores()))
    while (held := slots.take({"cpu": 1, "gpu": 1}, alone=f"{module} {words[0]}")) is None:
        time.sleep(SLOT_POLL_S)
    devices = held.names["gpu"]  # none on a machine without GPUs
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {})
    try:
        with own_group([sys.executable, "-m", module, *words], env=environment, pass_fds=held.files) as process:
            code = process.wait()
    finally:
        held.give_back()
    if code:
        raise subprocess.CalledProcessError(code, [module, *words])


def _unshown(systems: list[str]) -> Plan:
    """What renders, reports and publishes the systems whose present checkpoint is the champion, as far as that is not done.

    The report shows all systems: it is left where that would train one that nobody asked for.
    """
    champions = [system for system in systems if _is_champion(system)]
    if not champions:
        return Plan([], [], frozenset())
    whole = plan(tell, [f"{stage}@{system}" for stage in ("render", "publish") for system in champions])
    if all(stage.name.partition("@")[0] in AT_THE_END for stage in whole.stages):
        return whole
    _say("the report waits for other systems, which are stale: `talkingface reproduce` makes it")
    return plan(tell, [f"render@{system}" for system in champions])


def _is_champion(system: str) -> bool:
    champion = registry.champion(system)
    return champion is not None and champion.run_id == trained_run_id(system)


def _report(judged: list[Judged], failures: list[str]) -> str:
    """Markdown: a table of the decisions, with links to MLflow."""
    lines = ["| system | version | against | clips | metric | better by | decision |", "|---|---|---|---|---|---|---|"]
    client = mlflow.MlflowClient()
    for one in judged:
        version, decision = one.version, one.decision
        experiment = client.get_run(version.run_id).info.experiment_id
        model = f"[{version.number}]({mlflow_page()}/#/models/{version.name}/versions/{version.number})"
        run = f"[run]({mlflow_page()}/#/experiments/{experiment}/runs/{version.run_id})"
        against = "baseline" if one.champion is None else f"version {one.champion}"
        gain = "" if decision.gain is None else f"{decision.gain:+.4g}"
        verdict = f"{'**champion**' if decision.promoted else 'challenger'}: {decision.why}"
        cells = (version.system, f"{model}, {run}", against, str(decision.clips), one.metric, gain, verdict)
        lines.append(f"| {' | '.join(cells)} |")
    told = "\n".join(lines) if judged else "Nothing new was judged."
    return told + "".join(f"\n\nFailed: {failure.splitlines()[0]}" for failure in failures) + "\n"


def mlflow_page() -> str:
    """Address of MLflow's pages, never with a password: a server's own, else where `talkingface ui` shows the store."""
    store = urlsplit(mlflow.get_tracking_uri())
    if store.scheme not in ("http", "https"):
        return "http://127.0.0.1:5000"
    return f"{store.scheme}://{store.hostname}" + (f":{store.port}" if store.port else "")
