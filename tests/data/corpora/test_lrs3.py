"""LRS3 in small: its texts, its sets and its split."""

from pathlib import Path

import pytest

from data.corpora import Refused, corpus_clips
from data.corpora.lrs3 import text
from data.manifest import manifest, splits
from data.shardset import json_object
from tests.miniatures.lrs3 import TEXTS, write_native


def found(raw: Path) -> tuple[dict[str, dict], dict[str, Refused]]:
    all_of_them = list(corpus_clips(manifest("lrs3"), raw))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if not isinstance(clip, Refused)}
    return good, {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}


def test_every_film_is_a_clip_with_what_is_said(tmp_path):
    good, bad = found(write_native(tmp_path))
    assert not bad
    assert len(good) == len(TEXTS)
    about = good["pretrain--AbC_1dEfGh/00001"]
    assert (about["set"], about["transcript"], about["confidence"]) == ("pretrain", "THE FIRST WORD I SAID", 4)
    assert about["words"][1] == {"word": "FIRST", "start": 0.22, "end": 0.61}
    assert [word["word"] for word in about["words"]] == about["transcript"].split()
    # A table of the face's places comes before that of the words, or there is none of the words.
    assert [word["word"] for word in good["trainval-00j9bKdiOjk/50001"]["words"]] == ["WE'RE", "HERE"]
    assert "words" not in good["trainval-00j9bKdiOjk/50002"]


@pytest.mark.parametrize(
    "written",
    ["", "Conf: 4\n", "Text:  A\n\nWORD START END\nA 0.1\n", "Text:  A\n\nWORD START END\nA 2 1\n", "Text: A\nConf: x\n"],
)
def test_a_text_in_other_words_is_refused(written):
    with pytest.raises((ValueError, TypeError)):
        text(written)


def test_what_cannot_be_used_is_refused_by_name_and_the_rest_goes_on(tmp_path):
    raw = write_native(tmp_path / "raw")
    (raw / "pretrain/-AbC_1dEfGh/00001.txt").write_bytes(b"\xff\xfe\x00")
    (raw / "pretrain/-AbC_1dEfGh/00002.txt").write_text("Text:  A\n\nWORD START END\nA nan inf\n")
    (raw / "trainval/00j9bKdiOjk/50001.txt").unlink()
    strange = raw / "trainval" / "a b\nc"
    (raw / "trainval/00j9bKdiOjk").rename(strange)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (raw / "test/0Fi83BHQsMA/00003.mp4").symlink_to(tmp_path / "secret.mp4")
    good, bad = found(raw)
    assert {refused.key.partition("/")[2]: refused.reason for refused in bad.values()} == {
        "00001": "unreadable text",
        "00002": "unreadable text",
        "00003": "unsafe file",
    }
    assert len(good) == 3
    assert all("\n" not in key for key in good)
    (without,) = (about for key, about in good.items() if key.endswith("50001"))
    assert "transcript" not in without


def test_the_official_test_set_is_tested_and_each_hundredth_other_clip_validated_on():
    keys = [f"{part}-{speaker:03d}/{name:05d}" for part in ("pretrain", "trainval") for speaker in range(50) for name in range(5)]
    tested = [f"test-{speaker:03d}/00000" for speaker in range(20)]
    split_of = splits("lrs3").divide([(key, 1.0) for key in keys + tested])
    assert {key for key, split in split_of.items() if split == "test"} == set(tested)
    assert [key for key, split in split_of.items() if split == "val"] == sorted(keys)[99::100]
