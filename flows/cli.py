"""`talkingface`: what a person types. Heavy libraries are imported by the commands that need them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import typer
from rich.console import Console

import flows  # noqa: F401  (sets where Prefect and MLflow keep their state)
from stages.params import output, raw_section

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
def ui(mlflow_port: int = 5000, prefect_port: int = 4200) -> None:
    """Serve MLflow and Prefect on this machine alone, until Ctrl-C."""
    from flows.server import ServerFailed, wait_until_up

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
    running = [
        subprocess.Popen(
            [Path(sys.executable).parent / command[0], *command[1:]], start_new_session=True, stdout=subprocess.DEVNULL
        )
        for command in servers.values()
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        for (address, command), server in zip(servers.items(), running, strict=True):
            wait_until_up(address, server)
            console.print(f"{command[0]:8}{address}")
        while all(server.poll() is None for server in running):
            time.sleep(1)
        raise typer.Exit(1)
    except ServerFailed as error:
        console.print(error)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        pass
    finally:
        for server in running:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
        for server in running:
            server.wait()


if __name__ == "__main__":
    app()
