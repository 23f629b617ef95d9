"""One page that shows what was trained: scores beside baselines, curves, videos. A folder to open, zip or serve as it is."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from data.files import in_place
from stages.judges import judge_of
from stages.params import output, raw_section, system_params

TEMPLATE = Path(__file__).parent / "report.html.j2"


def read_table(path: Path) -> list[dict[str, str]]:
    """A csv file's rows."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def draw_curve(rows: list[dict[str, str]], path: Path) -> None:
    """The training and validation losses over steps."""
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for name in ("train_loss", "val_loss"):
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        axes.plot(*zip(*points, strict=True), label=name.replace("_", " "), marker="o" if name == "val_loss" else None)
    axes.set(xlabel="step", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def system_section(system: str, out: Path) -> dict[str, Any]:
    """Everything the page says of one system; its media are copied to `out/<system>`."""
    media = out / system
    media.mkdir()
    evaluation, training = output("evaluation", system), output("training", system)
    metrics, judge = json.loads((evaluation / "metrics.json").read_text()), judge_of(system)
    draw_curve(read_table(training / "curve.csv"), media / "curve.png")
    shutil.copy(evaluation / "samplers.png", media)
    for path in sorted(output("renders", system).iterdir()):
        shutil.copy(path, media)
    return {
        "name": system,
        "corpus": system_params(system).corpus,
        "card": (output("checkpoints", system) / "card.md").read_text(),
        "told": judge.told(metrics),
        "note": judge.NOTE,
        "headings": judge.HEADINGS,
        "rows": {system: metrics["own"]} | metrics["baselines"],
        "clips": metrics["clips"],
        "count": metrics["count"],
        "samplers": read_table(evaluation / "samplers.csv"),
        "videos": sorted(path.stem for path in media.glob("*.mp4")),
        "training": json.loads((training / "metrics.json").read_text()),
    }


def pretrained_section(name: str, out: Path) -> dict[str, Any]:
    """What the page says of what systems are trained on top of; its curve is drawn in `out/<name>`."""
    (out / name).mkdir()
    draw_curve(read_table(output("training", name) / "curve.csv"), out / name / "curve.png")
    return {"name": name, "card": (output("checkpoints", name) / "card.md").read_text()}


def run(name: str) -> None:
    with in_place(output("report", name)) as out:
        systems = [system_section(system, out) for system in raw_section("systems")]
        pretrained = [pretrained_section(name, out) for part in ("pretrain", "upon") for name in raw_section(part)]
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        corpora = [json.loads((output("verified", corpus) / "report.json").read_text()) for corpus in raw_section("corpora")]
        page = environment.from_string(TEMPLATE.read_text()).render(systems=systems, pretrained=pretrained, corpora=corpora)
        (out / "index.html").write_text(page)
