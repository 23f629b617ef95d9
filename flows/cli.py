"""`talkingface`: what a person types. Heavy libraries are imported by the commands that need them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import flows  # noqa: F401  (sets where Prefect and MLflow keep their state)
from stages.params import output, raw_section

if TYPE_CHECKING:
    from flows.stale import Plan

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A talking-face laboratory: see README.md.")
console = Console(soft_wrap=True)
HOST = "127.0.0.1"


@app.callback()
def main() -> None:
    """A talking-face laboratory: see README.md."""


@app.command()
def where(mlflow_port: int = 5000) -> None:
    """Show where the videos, the report and the MLflow runs are."""
    console.print(f"report      {output('report', 'site') / 'index.html'}")
    for system in raw_section("systems"):
        for video in sorted(output("renders", system).glob("*.mp4")):
            console.print(f"video       {video}")
        console.print(f"checkpoint  {output('checkpoints', system)}")
        run = json.loads((output("published", system) / "run.json").read_text())
        address = f"http://{HOST}:{mlflow_port}/#/experiments/{run['experiment_id']}/runs/{run['run_id']}"
        console.print(f"MLflow run  {address}  (after `make ui`)")


@app.command()
def datasets() -> None:
    """List every corpus: its licence and size, what of it is on this disk, and what to do about the rest."""
    from stages.inventory import holdings

    for one in holdings(raw_section("corpora")):
        size = f", {_gigabytes(one.size)} in all" if one.size else ""
        clips = f", {one.clips} clips in shards" if one.clips is not None else ""
        console.print(f"[bold]{one.corpus}[/bold]  {escape(one.about)}")
        console.print(f"    licence  {escape(one.licence)}  {one.page}")
        console.print(f"    on disk  {escape(one.state)}: {_gigabytes(one.here)}{size}{clips}")
        if one.next:
            console.print(f"    next     {escape(one.next)}")


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


@app.command()
def verify(corpus: str) -> None:
    """Check every byte of a corpus's shards, and tell what came of it: counts, hours, and what was left out and why."""
    from data.manifest import corpora
    from data.shardset import DamagedShard
    from stages.verify import BrokenPromise
    from stages.verify import verify as check

    if corpus not in corpora():
        console.print(f"there is no corpus {corpus}: `talkingface datasets` lists them")
        raise typer.Exit(1)
    if not output("shards", corpus).exists():
        console.print(f"{corpus} has no shards yet: `talkingface datasets` says what to do for them")
        raise typer.Exit(1)
    try:
        report = check(corpus)
    except (BrokenPromise, DamagedShard) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    used = ", ".join(f"{count} {split}" for split, count in report["used"].items())
    console.print(f"{corpus}: {report['clips']} clips found; used: {used}; set aside by the protocol: {report['excluded']}")
    splits = Table("split", "clips", "hours", "speakers", "frames", "with a face")
    for split, tally in report["aligned"].items():
        faces = f"{1 - tally['frames_without_face'] / tally['frames']:.1%}"
        splits.add_row(*map(str, (split, tally["clips"], tally["hours"], tally["speakers"], tally["frames"], faces)))
    console.print(splits)
    spread = report["sound_minus_pictures_ms"]
    console.print(f"sound is longer than the pictures by {spread['median']} ms (median; {spread['least']} to {spread['most']})")
    if report["speakers_in_two_splits"]:
        console.print(f"in more than one split: {', '.join(report['speakers_in_two_splits'][:10])}")
    if report["left_out"]:
        reasons = Table("left out", "by", "clips", "such as")
        for row in report["left_out"]:
            reasons.add_row(row["reason"], row["stage"], str(row["clips"]), escape(row["example"]))
        console.print(reasons)
    for row in report["expected"]:
        console.print(
            f"{row['what']}: {row['found']}, expected {row['expected']}",
            style=None if row["found"] == row["expected"] else "yellow",
        )


@app.command()
def speak(
    sound: Annotated[Path, typer.Argument(help="a file with sound, of any format")],
    out: Annotated[Path, typer.Argument(help=".mp4: a film; .glb, .npy, .zip of .obj, .csv of ARKit's blendshapes: the motion")],
    system: Annotated[str, typer.Option(help="a system that moves a mesh")] = "diffspeaker",
    like: Annotated[str | None, typer.Option(help="key of the clip whose neutral face speaks")] = None,
    style: Annotated[
        str | None, typer.Option(help="a speaker of the training set, as whom to speak; else as all of them")
    ] = None,
    seed: int = 0,
    landmarker: Annotated[Path | None, typer.Option(help="MediaPipe's face_landmarker.task, for .csv")] = None,
) -> None:
    """Let a trained system's face say a sound of your own."""
    from av.error import FFmpegError

    from models.checkpoint import BadCheckpoint
    from stages.speak import speak as say

    try:
        say(system, sound, out, like, style, seed, landmarker)
    except (ValueError, LookupError, OSError, FFmpegError, BadCheckpoint) as error:
        console.print(f"{sound} was not said: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(f"{out}  (synthetic: say so where you show it)")


@app.command()
def edit(
    video: Annotated[Path, typer.Argument(help="a video with a face")],
    audio: Annotated[Path, typer.Argument(help="what the face is to say: a file with sound, of any format")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the film, an .mp4 at 25 frames/s")],
    face: Annotated[str, typer.Option(help="where there are two faces: largest, left or right, anew in each shot")] = "largest",
    length: Annotated[
        str, typer.Option(help="where the voice outlasts the video: loop (forth and back), hold (the last frame) or trim")
    ] = "loop",
    system: Annotated[str, typer.Option(help="a system that makes frames")] = "video_editing",
    seed: int = 0,
) -> None:
    """Let the face of a video say another voice; a killed run goes on where it was."""
    from models.checkpoint import BadCheckpoint
    from models.speech.base import EncoderMissing
    from stages.edit import edit as make

    try:
        make(video, audio, out, face, length, seed, system)  # type: ignore[arg-type]  # checked there
    except (ValueError, OSError, BadCheckpoint, EncoderMissing) as error:
        console.print(f"{out} was not made: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(f"{out}  (synthetic: say so where you show it)")


@app.command()
def person(
    video: Annotated[Path, typer.Argument(help="a film of one person who speaks: a minute or more, pictures and sound")],
    name: Annotated[str | None, typer.Option(help="of the corpus that it becomes; else the file's name")] = None,
    crop: Annotated[str, typer.Option(help="bust: 128² pixels, for a CPU; portrait: 512²")] = "bust",
    train: Annotated[bool, typer.Option("--train/--no-train", help="whether to train now, or only to make the corpus")] = True,
) -> None:
    """Learn a person from a film: its corpus, and all trainings of geneface on it; killed, the same command goes on."""
    from stages.person import SYSTEM, make_corpus

    try:
        made = make_corpus(video, name, crop)
    except (ValueError, OSError) as error:
        console.print(f"nobody was learnt: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    before = "" if made.before == made.corpus else f", instead of {made.before}"
    console.print(f"{made.corpus}: {made.seconds:.0f} s of film; in params.yaml {SYSTEM} learns it now{before}")
    goal = f"render@{SYSTEM}"
    if not train:
        console.print(f"next: talkingface person {video} --name {made.corpus} --crop {crop}", markup=False)
        return
    found = _stale([goal])
    if found.stages:
        console.print(f"{len(found.stages)} stages to make, up to {goal}")
        _make(found, None, why=False)
    console.print(f"{made.corpus} has learnt to speak: {output('renders', SYSTEM)} shows it beside the film")
    console.print("next: talkingface render SOUND OUT.mp4")


@app.command()
def render(
    sound: Annotated[Path, typer.Argument(help="what the person is to say: a file with sound, of any format")],
    out: Annotated[Path, typer.Argument(help="the film, an .mp4 at 25 frames/s")],
    pose: Annotated[
        str, typer.Option(help="how the head moves: loop (a clip's way, forth and back), film (once), still")
    ] = "loop",
    like: Annotated[str | None, typer.Option(help="key of the clip whose head pose is taken; else the first one")] = None,
    blink: Annotated[bool, typer.Option("--blink/--no-blink", help="whether the eyes shut every four seconds")] = True,
    source: Annotated[str, typer.Option(help="whose landmarks: the person's (adapted), or anybody's (generic)")] = "adapted",
    seed: int = 0,
) -> None:
    """Let the person that geneface learnt say a sound of your own."""
    from av.error import FFmpegError

    from data.shardset import DamagedShard
    from models.checkpoint import BadCheckpoint
    from models.speech.base import EncoderMissing
    from stages.talk import talk

    try:
        talk(sound, out, pose, like, source, blink, seed)
    except (ValueError, OSError, FFmpegError, BadCheckpoint, DamagedShard, EncoderMissing) as error:
        console.print(f"{sound} was not said: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(f"{out}  (synthetic: say so where you show it)")


@app.command()
def reproduce(
    targets: Annotated[
        list[str] | None, typer.Argument(help="stages, with what they need: align@grid-0, or align for all of that name")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="stages at once; else as many as cores")] = None,
    dry: Annotated[bool, typer.Option("--dry", help="say what is stale and why, and run nothing")] = False,
) -> None:
    """Make what is stale, as `dvc repro` does, with stages that do not wait for each other side by side."""
    found = _stale(targets or ())
    if not found.stages:
        console.print("nothing is stale")
    elif dry:
        stale = Table("stage", "why")
        for stage in found.stages:
            stale.add_row(escape(stage.name), escape(stage.why))
        console.print(stale)
    else:
        _make(found, jobs, why=True)


def _tell(line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _stale(targets: Collection[str] = ()) -> "Plan":
    """What is stale of these stages and of what they need; of all, if none is named."""
    from dvc.exceptions import DvcException

    from flows.stale import WrongMeta, plan

    try:
        return plan(_tell, targets)
    except (DvcException, WrongMeta) as error:
        console.print(f"nothing was run: {error}", style="red", markup=False)
        raise typer.Exit(1) from error


def _make(found: "Plan", jobs: int | None, why: bool) -> None:
    """Runs what is stale, tells what became of it (and why it was stale), and exits with 1 if a stage failed."""
    from flows.server import prefect_api
    from stages.engine.workers import available_cores

    with prefect_api():
        from flows.reproduce import StagesFailed
        from flows.reproduce import reproduce as make

        try:
            outcomes = make(found, jobs or available_cores(), _tell)
        except StagesFailed as error:
            outcomes = error.outcomes
    summary = Table("stage", "state", "seconds", *["why"] * why)
    for outcome in outcomes:
        summary.add_row(escape(outcome.stage), outcome.state, str(outcome.seconds), *[escape(outcome.why)] * why)
    console.print(summary)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        console.print(f"{outcome.stage} failed; its last words:\n{outcome.last_words}", style="red", markup=False)
    if failed:
        raise typer.Exit(1)


@app.command()
def retrain(systems: Annotated[list[str] | None, typer.Argument(help="of params.yaml's `retrain`; else all")] = None) -> None:
    """Take new films from the inbox, retrain what is stale, and make champion what is better than the champion."""
    from flows.retrain import retrain as flow
    from flows.server import prefect_api

    with prefect_api():
        state = flow(systems or None, return_state=True)
    if not state.is_completed():
        console.print(f"{state.name}: {state.message}", style="red", markup=False)
        raise typer.Exit(1)
    console.print(state.message, markup=False)


@app.command()
def champions() -> None:
    """List each system's champion and challenger: version, run, code and data, and what was decided about it."""
    from flows import registry
    from flows.retrain import decided

    roles = {"champion": registry.champion, "challenger": registry.challenger}
    found = [(role, one) for system in raw_section("systems") for role, of in roles.items() if (one := of(system)) is not None]
    for role, version in found:
        console.print(f"[bold]{version.system}[/bold]  {role}: version {version.number}")
        console.print(f"    run {version.run_id}, commit {version.git_commit[:10]}, data {version.dataset_digest[:10]}")
        console.print(f"    {decided(version) or 'nothing was decided yet'}", markup=False)
    if not found:
        console.print("nothing is registered yet: `talkingface retrain` registers what it trains")


@app.command()
def rollback(system: str) -> None:
    """Make the champion before this one the champion again."""
    from flows import registry

    try:
        version = registry.rollback(system)
    except LookupError as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(f"version {version.number} of {system} is the champion again: {version.model_uri}")


@app.command()
def schedule(prefect_port: int = 4200) -> None:
    """Bring the deployments of prefect.yaml, with their schedules, to the Prefect server."""
    _find_prefect_server(prefect_port)
    from flows.schedule import prepare

    prepare()
    deploy = [str(Path(sys.executable).parent / "prefect"), "--no-prompt", "deploy", "--all"]
    done = subprocess.run(deploy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        console.print(done.stdout, style="red", markup=False)
        raise typer.Exit(1)
    for deployment in yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]:
        console.print(f"{deployment['name']:14}{deployment['description']}", markup=False)
    console.print("next: talkingface worker")


@app.command()
def worker(
    pools: Annotated[list[str] | None, typer.Argument(help="of prefect.yaml; else all of them")] = None,
    prefect_port: int = 4200,
) -> None:
    """Do in this folder what the Prefect server has scheduled, until Ctrl-C."""
    _find_prefect_server(prefect_port)
    os.environ["TALKINGFACE_FOLDER"] = str(Path.cwd())  # for prefect.yaml
    from flows.schedule import POOLS
    from flows.server import side_by_side

    chosen = pools or list(POOLS)
    if unknown := [pool for pool in chosen if pool not in POOLS]:
        console.print(f"there is no pool {', '.join(unknown)}: there are {', '.join(POOLS)}", style="red")
        raise typer.Exit(1)
    with side_by_side([["prefect", "worker", "start", "--type", "process", "--pool", pool] for pool in chosen]) as running:
        console.print(f"at work: {', '.join(chosen)}")
        while all(one.poll() is None for one in running):
            time.sleep(1)
        raise typer.Exit(1)


def _find_prefect_server(port: int) -> None:
    """Has this process and its children use the API of PREFECT_API_URL, else that of `talkingface ui`, if it answers."""
    import urllib.request

    server = os.environ.setdefault("PREFECT_API_URL", f"http://{HOST}:{port}/api")  # read when prefect is imported
    try:
        urllib.request.urlopen(f"{server}/health", timeout=10).close()
    except OSError as error:
        console.print("no Prefect server answers: start `talkingface ui`, or name one in PREFECT_API_URL", style="red")
        raise typer.Exit(1) from error


@app.command()
def ui(mlflow_port: int = 5000, prefect_port: int = 4200) -> None:
    """Serve MLflow and Prefect on this machine alone, until Ctrl-C."""
    from flows.server import ServerFailed, side_by_side, wait_until_up

    store = os.environ["MLFLOW_TRACKING_URI"]
    if not store.startswith("sqlite:"):
        console.print(
            "MLFLOW_TRACKING_URI names a server of its own: open that one, or unset it to serve the store of this folder"
        )
        raise typer.Exit(1)
    for name, port in (("mlflow", mlflow_port), ("prefect", prefect_port)):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                console.print(f"port {port} is taken: name another with `talkingface ui --{name}-port`")
                raise typer.Exit(1)
    servers = {
        f"http://{HOST}:{mlflow_port}": [
            *("mlflow", "server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1"),
            *("--backend-store-uri", store, "--default-artifact-root", str(Path("mlruns").resolve())),
        ],
        f"http://{HOST}:{prefect_port}": ["prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)],
    }
    with side_by_side(list(servers.values())) as running:
        try:
            for (address, command), server in zip(servers.items(), running, strict=True):
                wait_until_up(address, server)
                console.print(f"{command[0]:8}{address}")
            while all(server.poll() is None for server in running):
                time.sleep(1)
        except ServerFailed as error:
            console.print(error)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
