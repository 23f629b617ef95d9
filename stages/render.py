"""What a system made of the held-out clips as videos: real beside made, with the driving sound; and contact sheets."""

from data.files import in_place
from data.shardset import ShardSet, npy_array
from stages.judges import judge_of
from stages.params import output, section, system_params
from stages.rendering import RenderParams


def run(system: str) -> None:
    corpus, judge = system_params(system).corpus, judge_of(system)
    params = section("render", RenderParams)
    made = {clip.key: clip for clip in ShardSet(output("generated", system)).clips()}
    with in_place(output("renders", system)) as out:
        for clip in ShardSet(output("shards", corpus) / "test").clips():
            film, sheet = judge.film(clip, npy_array(made[clip.key].members[judge.MEMBER]), output("download", corpus), params)
            name = clip.key.replace("/", "_")
            (out / f"{name}.mp4").write_bytes(film)
            sheet.save(out / f"{name}.png")
