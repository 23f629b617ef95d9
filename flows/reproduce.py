"""`talkingface reproduce`: the stale part of the DVC graph, stages side by side, each a Prefect task.

* stale.py     what has to run, in what order, and why
* stagerun.py  one stage by DVC, which forks.py has loaded; under leash.py nothing of it is left when this process ends
* here         a stage is started the moment all it needs has ended well and its slots are free
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from graphlib import TopologicalSorter
from queue import Empty, SimpleQueue
from typing import Any

from prefect import State, Task, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import task_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed
from prefect.tasks import exponential_backoff

from flows.forks import Forks
from flows.stagerun import Hands, push
from flows.stale import Plan, Stage, order_lock, plan, remember
from stages.engine.slots import Held, Slots, machine
from stages.engine.workers import available_cores

SLOT_POLL_S = 0.2
NETWORK_RETRIES = 2
NETWORK_BACKOFF_S = 5


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    stage: str
    state: str  # ran, restored from cache or remote, unchanged, failed, not run
    seconds: float
    why: str
    last_words: str = ""


class StagesFailed(RuntimeError):
    """Some stages failed, and what follows from them was not run; the others were."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__(", ".join(outcome.stage for outcome in outcomes if outcome.state == "failed") + " failed")
        self.outcomes = outcomes


@flow(name="make")
def make(targets: list[str] | None = None) -> State[Any]:
    """What prefect.yaml's `make-now` runs: these stages (None: all) and what they need, as far as they are stale."""
    quiet_console()
    found = plan(tell, targets or ())
    made = reproduce(found, available_cores(), tell) if found.stages else []
    return Completed(message=", ".join(f"{outcome.stage} {outcome.state}" for outcome in made) or "nothing is stale")


def tell(line: str) -> None:
    """Where nobody is at a terminal: a worker's log has it at once."""
    print(line, flush=True)


def reproduce(plan: Plan, jobs: int, tell: Callable[[str], None]) -> list[Outcome]:
    """Run the plan's stages, at most `jobs` at once; what became of each. `tell` is given every line for the user.

    A stage that fails stops what follows from it and nothing else; StagesFailed is raised in the end. Ctrl-C and SIGTERM end
    what runs. Nothing is left running then, nor after SIGKILL. Prefect's API has to be there (prefect_api).
    """
    quiet_console()
    try:
        with Forks() as forks:
            # A training is a flow too: it joins this server instead of a second one on the same database.
            hands = Hands(tell, forks, {"PREFECT_API_URL": str(PREFECT_API_URL.value())}, plan.shared)
            outcomes: list[Outcome] | BaseException
            try:
                state = _flow(plan, Slots(machine(jobs)), hands, tell, return_state=True)
                outcomes = state.result(raise_on_failure=False)
            except KeyboardInterrupt as interrupt:  # raised once the server is told all: else Prefect tries for a minute
                outcomes = interrupt
    finally:
        order_lock(plan.order, plan.locked)
    if isinstance(outcomes, BaseException):
        raise outcomes
    return outcomes


def quiet_console() -> None:
    """Keeps Prefect's log lines off the terminal, where `tell` tells the user; its server gets every line."""
    for logger in (logging.root, logging.getLogger("prefect")):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.setLevel(logging.CRITICAL)


@flow(name="reproduce", validate_parameters=False)
def _flow(plan: Plan, slots: Slots, hands: Hands, tell: Callable[[str], None]) -> list[Outcome]:
    try:
        outcomes = _run_all(plan.stages, slots, hands, tell)
    except BaseException:
        hands.cancel()  # before Prefect waits for its threads, each of which waits for a stage
        raise
    if plan.shared:
        outcomes.append(_shared(tell))
    create_table_artifact(key="reproduce", table=[asdict(outcome) for outcome in outcomes], description="what became of stages")
    if any(outcome.state == "failed" for outcome in outcomes):
        raise StagesFailed(outcomes)
    return outcomes


def _run_all(stages: list[Stage], slots: Slots, hands: Hands, tell: Callable[[str], None]) -> list[Outcome]:
    by_name = {stage.name: stage for stage in stages}
    graph = TopologicalSorter({stage.name: stage.upstream for stage in stages})
    graph.prepare()
    ready: list[Stage] = []
    running: dict[str, tuple[Held, float]] = {}
    ended: SimpleQueue[tuple[str, PrefectFuture[str]]] = SimpleQueue()
    outcomes: dict[str, Outcome] = {}
    while graph.is_active():
        ready = sorted(ready + [by_name[name] for name in graph.get_ready()], key=lambda stage: -stage.way)
        for stage in list(ready):
            if (held := slots.take(stage.meta.needs(), alone=stage.name)) is not None:
                ready.remove(stage)
                running[stage.name] = held, time.monotonic()
                tell(f"{stage.name}: starts ({stage.why})")
                # Two trainings on a core each take less time than one after the other on both (small networks, measured).
                threads = max(1, available_cores() // min(len(running) + len(ready), len(slots.pools["cpu"])))
                future = _task(stage, hands).submit(stage.name, held, threads, hands)
                future.add_done_callback(partial(_put, ended, stage.name))
        if not ready and not running:
            break  # what is left follows from a stage that failed
        try:
            name, future = ended.get(timeout=SLOT_POLL_S if ready else None)
        except Empty:
            continue
        held, began = running.pop(name)
        took = round(time.monotonic() - began, 1)
        result = future.result(raise_on_failure=False)
        failed = isinstance(result, BaseException)
        state, words = ("failed", str(result)) if failed else (result, "")
        if state == "ran":
            remember(name, took)
        held.give_back()
        outcome = outcomes[name] = Outcome(name, state, took, by_name[name].why, words)
        tell(f"{name}: {outcome.state} after {outcome.seconds} s ({len(outcomes)} of {len(stages)} stages)")
        if not failed:
            graph.done(name)
    return [outcomes.get(stage.name, Outcome(stage.name, "not run", 0.0, stage.why)) for stage in stages]


def _shared(tell: Callable[[str], None]) -> Outcome:
    """Also where stages failed: what was made is not made again elsewhere."""
    began = time.monotonic()
    result = _push(return_state=True).result(raise_on_failure=False)
    state, words = ("failed", str(result)) if isinstance(result, BaseException) else ("ran", "")
    outcome = Outcome("push", state, round(time.monotonic() - began, 1), "DVC has a default remote", words)
    tell(f"push: {outcome.state} after {outcome.seconds} s")
    return outcome


def _put(ended: SimpleQueue[tuple[str, PrefectFuture[str]]], name: str, future: PrefectFuture[str]) -> None:
    ended.put((name, future))


@task(name="push", cache_policy=NO_CACHE, retries=NETWORK_RETRIES, retry_delay_seconds=exponential_backoff(NETWORK_BACKOFF_S))
def _push() -> None:
    push()


@task(cache_policy=NO_CACHE)
def _stage(name: str, held: Held, threads: int, hands: Hands) -> str:
    if task_run.run_count > 1:
        hands.tell(f"{name}: starts again")
    return hands.run(name, held, threads, get_run_logger().info)


def _task(stage: Stage, hands: Hands) -> Task[[str, Held, int, Hands], str]:
    return _stage.with_options(
        name=stage.name,
        task_run_name=stage.name,
        retries=NETWORK_RETRIES if stage.meta.network else 0,
        retry_delay_seconds=exponential_backoff(NETWORK_BACKOFF_S),
        retry_condition_fn=lambda *_: not hands.cancelled,
    )
