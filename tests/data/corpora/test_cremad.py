"""CREMA-D in small: names, pointers instead of films, and the committed lists."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import pytest

from data.corpora import Refused, corpus_clips
from data.corpora.cremad import NAME, SENTENCES
from data.manifest import HERE, manifest, splits
from data.media.video import frames_at
from data.shardset import json_object
from tests.miniatures.cremad import CLIPS, POINTER, listing, write_films, write_native

SPECS = Path(__file__).parents[4] / "shared" / "specs" / "datasets"
LISTED = [line.split() for line in (HERE / "manifests" / "cremad.txt").read_text().splitlines()]


def found(raw: Path) -> tuple[dict[str, dict], dict[str, Refused]]:
    all_of_them = list(corpus_clips(manifest("cremad"), raw))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if not isinstance(clip, Refused)}
    return good, {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}


def test_a_film_s_name_tells_who_says_what_and_how(tmp_path):
    good, bad = found(write_native(tmp_path))
    assert len(good) == len(CLIPS) - 1
    assert {key: refused.detail for key, refused in bad.items()} == {"1076/1076_MTI_SAD_XX": "error picture, no sound"}
    about = good["1001/1001_IEO_HAP_HI"]
    assert {name: about[name] for name in ("speaker", "transcript", "sentence", "emotion", "level")} == {
        "speaker": "1001",
        "transcript": "It's eleven o'clock",
        "sentence": "IEO",
        "emotion": "happy",
        "level": "high",
    }


def test_the_miniature_is_as_the_corpus_is(tmp_path):
    film = write_films(tmp_path, ["1001_DFA_ANG_XX"]) / "1001_DFA_ANG_XX.flv"
    with av.open(str(film)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        stamps = [frame.time * 1000 for frame in container.decode(video)]
        assert (container.format.name, video.width, video.height, audio.rate, audio.channels) == ("flv", 480, 360, 44100, 1)
        assert audio.codec_context.name.startswith("mp3")
        assert {round(later - earlier) for earlier, later in pairwise(stamps)} == {33, 34}
    assert len(list(frames_at(film, 25))) == pytest.approx(1.5 * 25, abs=1)
    assert listing(tmp_path).split()[2] == film.name


def test_what_cannot_be_used_is_refused_by_name_and_the_rest_goes_on(tmp_path):
    raw = write_native(tmp_path / "raw", ["1001_DFA_ANG_XX"])
    (raw / "VideoFlash/1001_DFA_DIS_XX.flv").write_bytes(POINTER)
    (raw / "VideoFlash/1001_DFA_DIS_X.flv").write_bytes(b"")
    (raw / "VideoFlash/10\n01.flv").write_bytes(b"")
    (raw / "VideoFlash/1001_DFA_FEA_XX.flv").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (raw / "VideoFlash/1001_DFA_HAP_XX.flv").symlink_to(tmp_path / "secret")
    good, bad = found(raw)
    assert good.keys() == {"1001/1001_DFA_ANG_XX"}
    assert sorted(refused.reason for refused in bad.values()) == [
        *("Git LFS pointer instead of a film", "no name of CREMA-D", "no name of CREMA-D"),
        *("unreadable file", "unsafe file"),
    ]
    assert "git lfs pull" in bad["1001/1001_DFA_DIS_XX"].detail


def test_the_list_of_films_is_complete_and_each_has_a_name_that_is_understood():
    assert len(LISTED) == 7442
    assert sum(int(size) for _, size, _ in LISTED) == pytest.approx(2.443e9, abs=1e6)
    assert [name for _, _, name in LISTED] == sorted({name for _, _, name in LISTED})
    named = [NAME.fullmatch(name.removesuffix(".flv")) for _, _, name in LISTED]
    emotions = Counter(match[3] for match in named)
    assert emotions == {**dict.fromkeys(("ANG", "DIS", "FEA", "HAP", "SAD"), 1271), "NEU": 1087}
    of_actor = Counter(match[1] for match in named)
    assert len(of_actor) == 91
    assert {actor: count for actor, count in of_actor.items() if count != 82} == {
        **{"1002": 81, "1008": 76, "1009": 76, "1019": 76, "1076": 81}
    }
    assert {match[2] for match in named if match[4] != "XX"} == {"IEO"}
    assert {match[2] for match in named} == SENTENCES.keys()
    assert {f"{name}.flv" for name in manifest("cremad").known_bad} <= {name for _, _, name in LISTED}


@pytest.mark.skipif(not SPECS.exists(), reason="no list of checksums beside the repository (../shared/specs)")
def test_the_checksums_are_those_of_the_repository_s_pointers():
    pointers = json.loads((SPECS / "cremad_lfs.json").read_text())
    assert all(pointers[f"VideoFlash/{name}"] == [sha256, int(size)] for sha256, size, name in LISTED)


def test_the_split_is_by_actor():
    keys = [f"{name[:4]}/{name.removesuffix('.flv')}" for _, _, name in LISTED]
    split_of = splits("cremad").divide([(key, 2.0) for key in keys])
    assert Counter(split_of.values()) == {"train": 5808, "val": 814, "test": 820}
    actors = {split: {key[:4] for key in keys if split_of[key] == split} for split in ("train", "val", "test")}
    assert actors["test"] == set(["1015", "1020", "1021", "1030", "1033", "1052", "1062", "1081", "1082", "1089"])
    assert sum(map(len, actors.values())) == len(set.union(*actors.values())) == 91
