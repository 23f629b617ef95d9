"""Sound of one's own, said by a face that the system knows: a film, or the motion for another program."""

import importlib
from pathlib import Path

from data.files import atomic_file
from data.media import audio, video
from data.shardset import Clip, ShardSet, npy_array
from data.topology import topology_of
from stages.evaluate import EvaluateParams
from stages.export import FORMATS, Motion, export
from stages.judges import makes, meshes
from stages.params import output, section, system_params
from stages.rendering import RenderParams

SOUND_RATE = 16_000  # Hz, of the film's sound and of what every system hears
FILM = ".mp4"


class CannotSpeak(ValueError):
    """What was asked for is not there, or not to be had in this way."""


def speak(system: str, sound: Path, out: Path, like: str | None, style: str | None, seed: int, landmarker: Path | None) -> None:
    """Writes `out` in the format that its suffix names, whole or not at all; sampler and steps are those of `evaluate`.

    like: key of the clip whose neutral face speaks; None is the first that was held out. style: a speaker of the training
    set; None is the mean of all. landmarker: see stages/export.py. Raises CannotSpeak, CannotExport, ValueError for sound
    or a style that cannot be used, and PyAV's error for a file that cannot be decoded.
    """
    if makes(system) != "meshes":
        raise CannotSpeak(f"{system} paints over a video, and does not move a mesh: name another with --system")
    if out.suffix not in (FILM, *FORMATS):
        raise CannotSpeak(f"{out}: no format {out.suffix!r}; there are {', '.join((FILM, *FORMATS))}")
    corpus = system_params(system).corpus
    clip = clip_of(corpus, like)
    about, template_V3 = meshes.about(clip), npy_array(clip.members["template.npy"])
    chosen, samples = section(f"evaluate.{system}", EvaluateParams), audio.samples_at(sound, SOUND_RATE)
    generate = importlib.import_module(f"models.{system}.generate")
    arguments = (samples, SOUND_RATE, template_V3, style, chosen.sampler, chosen.steps, seed)
    motion_TV3 = generate.speak(output("checkpoints", system), *arguments)
    if out.suffix == FILM:
        render = section("render", RenderParams)
        figure = meshes.figure(clip, output("download", corpus), render.mesh_size)
        frames = (figure.picture(vertices_V3) for vertices_V3 in motion_TV3)
        film = video.encode_frames(frames, about["fps"], render.crf, (samples, SOUND_RATE))
        with atomic_file(out) as file:
            file.write(film)
        return
    topology = topology_of(about, output("download", corpus))
    export(out, Motion(motion_TV3, template_V3, topology, about["fps"], meshes.scaling_of(clip)), landmarker=landmarker)


def clip_of(corpus: str, key: str | None) -> Clip:
    """A clip of the corpus's shards by its key, or the first that was held out. Raises CannotSpeak."""
    sets = [ShardSet(output("shards", corpus) / split) for split in ("test", "val", "train")]
    keys = [one for shards in sets for one in shards.keys]
    key = key or keys[0]
    for shards in sets:
        if key in shards.keys:
            return next(clip for clip in shards.clips() if clip.key == key)
    raise CannotSpeak(f"{corpus} has no clip {key}: it has {', '.join(sorted(keys)[:10])} …")
