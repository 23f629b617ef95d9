"""A video whose face says another voice: what `talkingface edit` does.

The video is read twice, so that its frames never stand in memory together: first to find shots and faces (shots.py), then,
frame by frame, to paint (painting.py), put the paint back (pasting.py) and encode (film.py). A killed run goes on where it
was: what is found and painted stands in a folder named by a hash of all that it depends on, until the film is whole. Any system
that makes frames can paint: its painter (models/painting.py) has the crop of the corpus on which it was trained.

* The film runs at `align.fps`, 25 frames/s, as the network does: a source of another rate is read by time, as everywhere here.
* The film is as long as the voice. Where the voice outlasts the video, `loop` plays the video forth and back, `hold` holds its
  last frame, and `trim` ends with the video.
* Frames without a face, and faces in profile, are kept as they are. The detector sees two faces at most, and none much smaller
  than a tenth of the picture's width. Who is who is told by place alone, anew in each shot.
* Of the voice, all of the network's column is in memory: librosa's transform takes 40 MB a minute while it is made.
* What the voice does not say is not made up: in silence the mouth closes as far as the network has learnt it.
"""

import hashlib
import importlib
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from rich.progress import Progress

from data.files import atomic_file
from data.manifest import manifest
from data.media import audio, video
from data.shardset import json_bytes
from models.checkpoint import CONFIG, WEIGHTS
from models.painting import Painter
from stages.align import AlignParams, Crop
from stages.bars import bars, told
from stages.edit.film import Length, played, write_film
from stages.edit.painting import painted
from stages.edit.pasting import Paster
from stages.edit.shots import Face, Places, find_places
from stages.engine import code_version
from stages.evaluate import EvaluateParams
from stages.hearing import column
from stages.judges import makes
from stages.masks import MaskParams
from stages.params import output, raw_section, section, system_params, work
from stages.rendering import RenderParams
from stages.spectrograms import SpectrogramParams


class CannotEdit(ValueError):
    """What was asked for is not there, or not to be had in this way."""


@dataclass(frozen=True)
class Settings:
    """All that decides on the film beside the two files, the checkpoint and the code."""

    face: Face
    length: Length
    seed: int  # of the noise
    system: str
    crop_name: str  # of align.crops
    align: AlignParams
    masks: MaskParams
    spectrograms: SpectrogramParams
    sampling: EvaluateParams
    render: RenderParams

    @property
    def crop(self) -> Crop:
        return self.align.crops[self.crop_name]


def edit(source: Path, voice: Path, out: Path, face: Face, length: Length, seed: int, system: str) -> None:
    """Writes `out`, an .mp4 in which the face of the video `source` says `voice`, whole or not at all.

    voice: a file with sound, of any format, or another video. face: which one, where there are two. system: whose newest
    checkpoint paints, sampling as params' `evaluate` says. Progress is told on stderr. Raises CannotEdit, ValueError for sound
    or a sampling that cannot be used, Unusable for a file, BadCheckpoint, and EncoderMissing for what the network hears with.
    """
    check(source, voice, out, face, length)
    settings = Settings(
        face,
        length,
        seed,
        system,
        crop_of(system),
        section("align", AlignParams),
        section("masks", MaskParams),
        section("spectrograms", SpectrogramParams),
        section(f"evaluate.{system}", EvaluateParams),
        section("render", RenderParams),
    )
    checkpoint, sampling = output("checkpoints", system), settings.sampling
    generate = importlib.import_module(f"models.{system}.generate")
    painter: Painter = generate.Painter(checkpoint, sampling.sampler, sampling.steps, sampling.batch_size, seed)
    if painter.size != settings.crop.size:
        crop = f"align.crops.{settings.crop_name}.size"
        raise CannotEdit(f"{checkpoint} paints {painter.size} pixels, and {crop} is {settings.crop.size}")
    folder = work("edit", made_from(source, voice, checkpoint, settings))
    align = settings.align
    try:
        sound = audio.samples_at(voice, align.sample_rate)
        if not len(sound):
            raise CannotEdit(f"{voice}: its sound has no length")
        heard = -(-len(sound) * align.fps // align.sample_rate)  # frames; a begun one counts, or the voice's end is lost
        with bars() as progress:
            places = placed(source, heard, settings, folder / "places.npz", progress)
            count = min(heard, len(places)) if length == "trim" else heard
            to_hear = painter.audio, painter.speech_encoder
            rows_SD = column(*to_hear, sound, align.sample_rate, count, align.fps, settings.spectrograms)
            heard_N = painter.windows(rows_SD)
            del sound, rows_SD
            with atomic_file(out) as file:
                faces = painted(played(source, len(places), align.fps, length), places, heard_N, painter, folder)
                paster = Paster(settings.render.seam)
                frames = (paster.paste(*one) for one in told(progress, "painting", faces, count))
                write_film(file, source, frames, align.fps, settings.render.crf, voice, count / align.fps)
    except video.MediaError as error:
        raise CannotEdit(f"{error.filename or source}: {error.strerror}") from error
    shutil.rmtree(folder)


def check(source: Path, voice: Path, out: Path, face: str, length: str) -> None:
    """Raises CannotEdit for what can be seen without opening a file."""
    for path in (source, voice):
        if not path.is_file():
            raise CannotEdit(f"there is no file {path}")
    if out.suffix != ".mp4":
        raise CannotEdit(f"{out}: the film is an .mp4: name it so")
    if not out.parent.is_dir():
        raise CannotEdit(f"there is no folder {out.parent}")
    if out.exists() and any(out.samefile(path) for path in (source, voice)):
        raise CannotEdit(f"{out} is what the film is made from: name another file")
    for name, value, kinds in (("face", face, get_args(Face)), ("length", length, get_args(Length))):
        if value not in kinds:
            raise CannotEdit(f"--{name} {value}: it is one of {', '.join(kinds)}")


def crop_of(system: str) -> str:
    """The name of the crop on which a system is trained: that of its corpus. Raises CannotEdit for one that paints no frames."""
    if system not in raw_section("systems"):
        raise CannotEdit(f"there is no system {system} in params.yaml: there are {', '.join(raw_section('systems'))}")
    if makes(system) != "frames":
        raise CannotEdit(f"{system} moves a mesh: use `talkingface speak`")
    corpus = system_params(system).corpus
    name = manifest(corpus).crop
    if name not in raw_section("align.crops"):
        raise CannotEdit(f"align.crops in params.yaml has no {name}, which the manifest of {corpus} names: add it")
    return name


def made_from(source: Path, voice: Path, checkpoint: Path, settings: Settings) -> str:
    """A name that is another whenever the film could be another."""
    digests = []
    for path in (source, voice, checkpoint / WEIGHTS, checkpoint / CONFIG):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    code = [code_version(module) for module in ("stages.edit", f"models.{settings.system}.generate")]
    all_of_it = json_bytes({"files": digests, "settings": asdict(settings), "code": code})
    return hashlib.sha256(all_of_it).hexdigest()[:16]


def placed(source: Path, heard: int, settings: Settings, kept: Path, progress: Progress) -> Places:
    """Where the face is in the first `heard` frames, as found now or, in `kept`, by an earlier run. CannotEdit without a face."""
    if kept.exists():
        return Places.read(kept)
    fps = settings.align.fps
    lasts = video.duration(source)
    expected = heard if lasts is None else min(heard, max(1, round(lasts * fps)))
    frames = told(progress, "finding the face", video.frames_at(source, fps, 0.0, heard / fps), expected)
    places = find_places(frames, settings.face, settings.crop, settings.masks)
    if not places.found.any():
        raise CannotEdit(f"{source}: no face in any of {len(places)} frames that could be painted")
    kept.parent.mkdir(parents=True, exist_ok=True)
    places.write(kept)
    return places
