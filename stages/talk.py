"""A sound of one's own, said by the person that geneface learnt: what `talkingface render` does.

The head moves as in a clip of the person's films: as there, forth and back without end, or not at all. Of the sound, its rows
and the person's motion are in memory, 3 kB a frame; its pictures go to the film one by one.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from data.files import atomic_file
from data.media import audio
from data.shardset import Clip, ShardSet, json_object, npy_array
from models.geneface import generate
from models.geneface.generate import PosePath
from models.head.examples import camera_of
from models.hearing import check_members
from stages.bars import bars, told
from stages.edit.film import write_film
from stages.evaluate import EvaluateParams
from stages.hearing import column
from stages.params import PARAMS, locked_stages, output, section, system_params
from stages.person import SYSTEM
from stages.rendering import RenderParams
from stages.speak import SOUND_RATE, CannotSpeak, clip_of
from stages.spectrograms import SpectrogramParams

Source = Literal["adapted", "generic"]


def talk(sound: Path, out: Path, pose: str, like: str | None, source: str, blink: bool, seed: int) -> None:
    """Writes `out`, an .mp4 in which the person says `sound`, a file of any format; whole or not at all.

    pose: a PosePath. like: key of the clip whose head pose and camera are taken; None is the first that was trained on. source:
    whose landmarks are painted, the person's (adapted), or anybody's (generic). blink: every four seconds; else the eyes do as
    the motion has them. Progress is told on stderr. Raises CannotSpeak, ValueError, BadCheckpoint, EncoderMissing, and PyAV's
    error for a sound that cannot be decoded.
    """
    check(sound, out, pose, source)
    corpus, checkpoint = system_params(SYSTEM).corpus, output("checkpoints", SYSTEM)
    if not checkpoint.exists():
        raise CannotSpeak(f"there is no {checkpoint}: train a person first, by `talkingface person VIDEO`")
    if (learnt := learnt_corpus(corpus)) != corpus:
        raise CannotSpeak(
            f"{checkpoint} has learnt {learnt}, and params.yaml says {corpus}: learn that by `dvc repro train@{SYSTEM}`, or by "
            "`talkingface person` with its film"
        )
    clip = training_clip(corpus, like)
    samples = audio.samples_at(sound, SOUND_RATE)
    if not len(samples):
        raise CannotSpeak(f"{sound}: its sound has no length")
    fps = json_object(clip.members["json"])["fps"]
    frames = -(-len(samples) * fps // SOUND_RATE)  # a begun one counts, or the voice's end is lost
    pose_T44 = generate.pose_path(npy_array(clip.members["pose.npy"]), frames, pose)  # type: ignore[arg-type]  # checked above
    with bars() as progress:
        pictures = painted(checkpoint, samples, clip, pose_T44, source, blink, seed)
        with atomic_file(out) as file:
            shown = told(progress, "painting", pictures, frames)
            write_film(file, None, shown, fps, section("render", RenderParams).crf, sound, frames / fps)


def painted(
    checkpoint: Path, samples: np.ndarray, clip: Clip, pose_T44: np.ndarray, source: str, blink: bool, seed: int
) -> Iterator[np.ndarray]:
    """The pictures `(S, S, 3)` uint8 of a person who says the samples, with T poses and the clip's camera."""
    person = generate.ready(checkpoint, section(f"evaluate.{SYSTEM}", EvaluateParams).steps)
    if blink and not person.voice.network.config.frames:
        raise CannotSpeak(f"{checkpoint} holds no motion of the person's, whose shut eyes a blink takes: give --no-blink")
    hears, about = person.voice.motion.config, json_object(clip.members["json"])
    spectrograms = section("spectrograms", SpectrogramParams)
    rows_SD = column(hears.audio, hears.speech_encoder, samples, SOUND_RATE, len(pose_T44), about["fps"], spectrograms)
    guards = replace(person.voice.network.config.guards, blink="period" if blink else "none")
    motion_TX = generate.speak(person, rows_SD, source, seed, guards)
    camera = camera_of(clip, person.torso.config.image_size / about["size"])
    yield from generate.paint(person, motion_TX, pose_T44, camera, rows_SD)


def check(sound: Path, out: Path, pose: str, source: str) -> None:
    """Raises CannotSpeak for what can be seen without opening a file."""
    if not sound.is_file():
        raise CannotSpeak(f"there is no file {sound}")
    if out.suffix != ".mp4":
        raise CannotSpeak(f"{out}: the film is an .mp4: name it so")
    if not out.parent.is_dir():
        raise CannotSpeak(f"there is no folder {out.parent}")
    if out.exists() and out.samefile(sound):
        raise CannotSpeak(f"{out} is what the film is made from: name another file")
    for name, value, kinds in (("pose", pose, get_args(PosePath)), ("source", source, get_args(Source))):
        if value not in kinds:
            raise CannotSpeak(f"--{name} {value}: it is one of {', '.join(kinds)}")


def learnt_corpus(asked: str) -> str:
    """The corpus that the checkpoint was trained on, as DVC's record says; `asked` if it was not trained by DVC here."""
    trained = locked_stages().get(f"train@{SYSTEM}")
    return trained["params"][str(PARAMS)][f"systems.{SYSTEM}"]["corpus"] if trained else asked


def training_clip(corpus: str, key: str | None) -> Clip:
    """A clip of the corpus's shards by its key, or the first that was trained on. Raises CannotSpeak."""
    folder = output("shards", corpus)
    if not folder.exists():
        raise CannotSpeak(f"there are no shards of {corpus} in {folder}: make them by `dvc repro shards@{corpus}`")
    clip = clip_of(corpus, key) if key else next(ShardSet(folder / "train").clips(), None)
    if clip is None:
        raise CannotSpeak(f"{folder / 'train'} holds no clip: `talkingface verify {corpus}` says why")
    check_members(clip, ("pose.npy", "camera.json"))
    return clip
