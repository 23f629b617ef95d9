"""GRID in small, and as it is: sentences, word times, films that lack something, and the committed lists."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.corpora import Refused, corpus_clips, grid
from data.corpora.grid import NAME, NoAlignments, sentence, words
from data.manifest import manifest, splits
from data.media.audio import samples_at
from data.shardset import json_object
from tests.miniatures.formats import talker, write_film
from tests.miniatures.grid import CLIPS, FORMAT, alignment, write_native, write_sheffield

SHARED = Path(__file__).parents[4] / "shared"
MEDIA, SPECS = SHARED / "media" / "grid", SHARED / "specs" / "datasets"


def found(raw: Path, corpus: str = "grid") -> tuple[dict[str, dict], dict[str, Refused]]:
    all_of_them = list(corpus_clips(manifest(corpus), raw))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if not isinstance(clip, Refused)}
    bad = {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}
    assert len(good) + len(bad) == len(all_of_them)
    return good, bad


def test_every_film_is_a_clip_with_its_sentence_and_the_times_of_its_words(tmp_path):
    good, bad = found(write_native(tmp_path))
    assert good.keys() == {f"{speaker}/{name}" for speaker, names in CLIPS.items() for name in names}
    assert not bad
    about = good["s11/bbae2n"]  # its alignment stands in another speaker's folder
    assert (about["speaker"], about["transcript"], about["source"]) == ("s11", "bin blue at e two now", "s11/bbae2n.mpg")
    assert [(word["word"], word["start"], word["end"]) for word in about["words"]] == [
        *(("bin", 0.95, 1.18), ("blue", 1.18, 1.36), ("at", 1.36, 1.42)),
        *(("e", 1.42, 1.64), ("two", 1.64, 1.89), ("now", 1.89, 2.12)),
    ]


def test_one_speaker_alone_and_sheffield_s_layout(tmp_path):
    write_native(tmp_path / "zenodo")
    good, bad = found(tmp_path / "zenodo", "grid_s1")
    assert {key.partition("/")[0] for key in good} == {"s1"}
    assert not bad
    good, bad = found(write_sheffield(tmp_path / "sheffield", "s2", ["bbaf1n", "bbaf2s"]))
    assert [about["source"] for about in good.values()] == [f"s2/video/mpg_6000/{name}.mpg" for name in ("bbaf1n", "bbaf2s")]
    assert all(len(about["words"]) == 6 for about in good.values())
    assert not bad


def test_what_cannot_be_used_is_refused_by_name_and_the_rest_goes_on(tmp_path):
    raw = write_native(tmp_path / "raw", {"s1": [f"bbaf{digit}n" for digit in "123456789"]})
    write_film(raw / "s1/lbaf1n.mpg", FORMAT, talker(2.0, FORMAT.fps, 360, 288, scale=0.8), None)
    whole = (raw / "s1/bbaf1n.mpg").read_bytes()
    (raw / "s1/lbaf2n.mpg").write_bytes(whole[: len(whole) // 2])
    (raw / "s1/lbaf3n.mpg").write_bytes(b"<html>503 Service Unavailable</html>")
    (raw / "s1/lrarzn.mpg").write_bytes(whole)
    (raw / "s1/hello\nworld.mpg").write_bytes(whole)
    (raw / "s1/bbAF1n.mpg").write_bytes(whole)
    (raw / "bbaf1n.mpg").write_bytes(whole)
    (tmp_path / "secret.mpg").write_bytes(whole)
    (raw / "s1/lbaf4n.mpg").symlink_to(tmp_path / "secret.mpg")
    for name in ("lbaf1n", "lbaf2n", "lbaf3n", "lbaf4n", "lrarzn"):
        (raw / f"alignments/s1/{name}.align").write_text(alignment(name))
    (raw / "alignments/s1/bbaf9n.align").write_text("0 23750 sil\n23750 bin\n")
    good, bad = found(raw)
    assert good.keys() == {f"s1/bbaf{digit}n" for digit in "12345678"}
    assert Counter(refused.reason for refused in bad.values()) == {
        "not 75 frames": 2,
        "unreadable file": 1,
        "unsafe file": 1,
        "known to be bad": 1,
        "unreadable alignment": 1,
        "no name of GRID": 3,
    }
    assert bad["s1/lbaf1n"].detail == "'s1/lbaf1n.mpg' has 50"
    assert all("\n" not in refused.key + refused.detail for refused in bad.values())


def test_a_speaker_without_alignments_is_refused_loudly(tmp_path):
    raw = write_native(tmp_path)
    for path in (raw / "alignments").rglob("bbae*.align"):  # those of s9 and s11
        path.unlink()
    with pytest.raises(NoAlignments, match=r"0 of the 2 clips of s\d+ .*alignments.zip"):
        found(raw)
    assert found(raw, "grid_s1")[0]


def test_two_alignments_of_one_name_that_differ_are_not_believed(tmp_path):
    raw = write_native(tmp_path)
    (raw / "alignments/s30").mkdir()
    shutil.copy(raw / "alignments/s1/bbaf2n.align", raw / "alignments/s30/bbaf2n.align")
    (raw / "alignments/s30/bbaf3s.align").write_text(alignment("bbaf3s").replace("23750", "20000"))
    good, _ = found(raw)
    assert "words" in good["s1/bbaf2n"]
    assert "words" not in good["s1/bbaf3s"]
    assert good["s1/bbaf3s"]["transcript"] == "bin blue at f three soon"


def test_a_clip_that_stands_twice_is_an_error_that_names_both(tmp_path):
    raw = write_native(tmp_path)
    write_sheffield(raw, "s1", ["bbaf2n"])
    with pytest.raises(ValueError, match=r"s1/bbaf2n stands twice.*s1/bbaf2n.mpg.*mpg_6000"):
        found(raw)


@pytest.mark.skipif(not MEDIA.exists(), reason="no real clips beside the repository (../shared/media)")
def test_a_real_alignment_lies_on_the_sound_of_its_film(tmp_path):
    """Oracle: the sound itself, which is loud within the words and not before them."""
    said = words((MEDIA / "swwp2s.align").read_text())
    assert [word["word"] for word in said] == sentence("swwp2s").split() == ["set", "white", "with", "p", "two", "soon"]
    assert (said[0]["start"], said[-1]["end"]) == (0.49, 2.21)
    for folder, suffix in (("s1", "mpg"), ("alignments/anywhere", "align")):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(MEDIA / f"swwp2s.{suffix}", tmp_path / folder)
    good, bad = found(tmp_path)
    assert good["s1/swwp2s"]["words"] == said
    assert not bad

    sound = samples_at(MEDIA / "swwp2s.mpg", 16000)
    level = 20 * np.log10(np.sqrt(np.mean(sound[: 75 * 640 - 640].reshape(-1, 640) ** 2, axis=1)) + 1e-6)
    first, last = round(said[0]["start"] * 25), round(said[-1]["end"] * 25)
    assert np.median(level[first:last]) > np.median(level[: first - 2]) + 15
    assert np.flatnonzero(level > np.median(level[first:last]) - 10)[0] == pytest.approx(first, abs=3)


@pytest.mark.skipif(not MEDIA.exists(), reason="no real clips beside the repository (../shared/media)")
def test_the_real_films_have_their_75_frames(tmp_path):
    (tmp_path / "s1").mkdir()
    for path in MEDIA.glob("*.mpg"):
        shutil.copy(path, tmp_path / "s1")
        (tmp_path / "s1" / f"{path.stem}.align").write_text(alignment(path.stem))
    good, bad = found(tmp_path)
    assert len(good) == 7
    assert not bad


@pytest.mark.skipif(not SPECS.exists(), reason="no lists of names beside the repository (../shared/specs)")
def test_the_names_of_the_corpus_spell_sentences_and_the_lists_divide_them():
    names = (SPECS / "grid_names.txt").read_text().split()
    assert all(NAME.fullmatch(name.partition("/")[2]) for name in names)
    assert len({sentence(name.partition("/")[2]) for name in names}) == 33000

    def counts(split: str, some: list[str]) -> Counter:
        return Counter(splits(split).divide([(name, 3.0) for name in some]).values())

    assert counts("grid", names) == {"train": 16000, "val": 7000, "test": 10000}
    assert counts("grid_lipnet", names) == {"train": 28837 - 288, "val": 288, "test": 3986, "excluded": 177}
    of_s1 = [name for name in names if name.startswith("s1/")]
    assert counts("grid_s1", of_s1) == {"train": 925, "val": 25, "test": 50}

    missing = json.loads((SPECS / "grid_vipl_missing.json").read_text())
    assert splits("grid_lipnet").lists["excluded"] == missing
    usable = [name for name in of_s1 if name not in missing]
    drawn = sorted(usable, key=lambda name: hashlib.sha256(f"seed 0 {name}".encode()).hexdigest())
    lists = splits("grid_s1").lists
    assert (lists["test"], lists["val"]) == (sorted(drawn[:50]), sorted(drawn[50:75]))


def test_the_lists_know_all_speakers_and_no_speaker_is_in_two():
    for name in ("grid", "grid_lipnet"):
        lists = splits(name).lists
        speakers = [pattern.partition("/")[0] for split in ("train", "val", "test") for pattern in lists.get(split, [])]
        assert sorted(speakers) == sorted(f"s{number}" for number in range(1, 35) if number != 21)


def test_zenodo_s_files_are_all_named_and_the_known_checksums_are_complete():
    (source,) = manifest("grid").sources
    assert source["files"].keys() == {f"s{number}.zip" for number in range(1, 35) if number != 21} | {"alignments.zip"}
    assert {name for name, checksum in source["files"].items() if checksum} == {f"s{number}.zip" for number in range(1, 11)}
    (alone,) = manifest("grid_s1").sources
    assert alone["files"] == {name: source["files"][name] for name in ("s1.zip", "alignments.zip")}


def test_no_alignment_has_units_but_25000_a_second():
    assert words("0 25000 sil\n25000 75000 bin\n") == [{"word": "bin", "start": 1.0, "end": 3.0}]
    for wrong in ("", "5 3 bin\n", "-1 3 bin\n", "a b bin\n"):
        with pytest.raises(ValueError):
            words(wrong)
    assert grid.UNITS == 25 * 1000
