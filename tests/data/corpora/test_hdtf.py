"""HDTF in small: the authors' text files and the boxes in videos of another height; and the committed lists."""

import re
import shutil
from pathlib import Path

import pytest

from data.corpora import Refused, corpus_clips
from data.corpora.hdtf import SETS, WrongAnnotation, films, videos
from data.manifest import manifest, splits
from data.shardset import json_object
from tests.miniatures.hdtf import ALIVE, TEXTS, write_native, write_texts, write_videos


def found(raw: Path) -> tuple[dict[str, dict], dict[str, Refused]]:
    all_of_them = list(corpus_clips(manifest("hdtf"), raw))
    good = {clip.key: json_object(clip.members["json"]) for clip in all_of_them if not isinstance(clip, Refused)}
    bad = {refused.key: refused for refused in all_of_them if isinstance(refused, Refused)}
    assert len(good) + len(bad) == len(all_of_them)
    return good, bad


def test_the_videos_that_are_asked_for_are_those_of_which_a_clip_can_be_made(tmp_path):
    asked = {video.name: (video.url, video.height) for video in videos(write_texts(tmp_path))}
    assert asked == {
        f"{name}": (f"https://www.youtube.com/watch?v={video}", 720)
        for name, video in (
            ("RD_Radio1", "AAAAAAAAAA1"),
            ("WDA_CarolynMaloney2", "-AAAAA_AAA2"),  # the first line, after the byte order mark
            ("WDA_CarolynMaloney1", "AAAAAAAAAA3"),  # without `&t=138s`
            ("WDA_WhipJimClyburn", "AAAAAAAAAA4"),  # the last line, which has no end
            ("WRA_MittRomney", "AAAAAAAAAA5"),
            ("WRA_MichaelSteele", "AAAAAAAAAA7"),
        )
    }


def test_clips_are_the_ranges_with_boxes_scaled_to_the_picture_that_came(tmp_path):
    good, bad = found(write_native(tmp_path))
    assert {key: (about["start"], about["end"], about["box"]) for key, about in good.items()} == {
        "Radio/RD_Radio1_000": (0.0, 2.0, [175, 30, 290, 290]),
        "Radio/RD_Radio1_001": (2.0, 4.0, [176, 30, 290, 290]),
        "CarolynMaloney/WDA_CarolynMaloney1_000": (1.0, 3.0, [176, 30, 290, 290]),
        "CarolynMaloney/WDA_CarolynMaloney2_000": (0.0, 2.0, [175, 30, 290, 290]),
        "MittRomney/WRA_MittRomney_000": (1.0, 3.0, [175, 30, 290, 290]),
        "MichaelSteele/WRA_MichaelSteele_000": (0.0, 2.0, [175, 30, 290, 290]),
    }
    assert good["Radio/RD_Radio1_000"]["set"] == "RD"
    assert {key: refused.reason for key, refused in bad.items()} == {
        "JamesClyburn/WDA_WhipJimClyburn_000": "video not available",  # and he goes by one name
        "MittRomney/WRA_MittRomney_001": "no crop box",
        "KevinMcCarthy/WRA_KevinMcCarthy1_000": "crop box of unknown height",
        "KevinMcCarthy/WRA_KevinMcCarthy1_001": "crop box of unknown height",
        "MichaelSteele/WRA_MichaelSteele_001": "video too short",
        "PeterKing/WRA_PeterKing_000": "crop box outside of the picture",
    }


def test_every_range_is_told_of_whichever_videos_came(tmp_path):
    raw = write_texts(tmp_path)
    (raw / "videos").mkdir()
    good, bad = found(raw)
    assert not good
    assert len(bad) == 12
    assert "WDA_CarolynMaloney1.mp4 is not there" in bad["CarolynMaloney/WDA_CarolynMaloney1_000"].detail


def test_a_video_that_is_none_costs_its_own_clips(tmp_path):
    raw = write_native(tmp_path / "raw")
    (raw / "videos/RD_Radio1.mp4").write_bytes(b"<html>gone</html>")
    (tmp_path / "elsewhere").mkdir()
    shutil.move(raw / "videos/WRA_MittRomney.mp4", tmp_path / "elsewhere")
    (raw / "videos/WRA_MittRomney.mp4").symlink_to(tmp_path / "elsewhere/WRA_MittRomney.mp4")
    good, bad = found(raw)
    assert bad["Radio/RD_Radio1_000"].reason == bad["Radio/RD_Radio1_001"].reason == "unreadable file"
    assert bad["MittRomney/WRA_MittRomney_000"].reason == "unsafe file"
    assert len(good) == 3


def test_a_picture_of_another_shape_does_not_hold_the_box(tmp_path):
    raw = write_texts(tmp_path)
    write_videos(raw / "videos", height=96)
    (raw / "WDA_crop_wh.txt").write_bytes(TEXTS["WDA_crop_wh"].replace(b"351 581 61 581", b"900 581 61 581"))
    good, bad = found(raw)
    assert good["Radio/RD_Radio1_000"]["box"] == [47, 8, 77, 77]
    assert bad["CarolynMaloney/WDA_CarolynMaloney1_000"].reason == "crop box outside of the picture"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WDA_video_url", b"\xef\xbb\xbfA https://www.youtube.com/watch?x=1\n"),
        ("WDA_video_url", b"../../etc/passwd https://www.youtube.com/watch?v=AAAAAAAAAA1\n"),
        ("RD_annotion_time", b"Radio1.mp4 00:00-1:2:3\n"),
        ("RD_annotion_time", b"Radio1.mp4\n"),
        ("WRA_crop_wh", b"MittRomney_0.mp4 1 2 3\n"),
        ("WRA_crop_wh", b"MittRomney_0.mp4 1 2 3 x\n"),
        ("RD_resolution", b"<html>\n"),
    ],
)
def test_an_annotation_in_other_words_is_an_error(tmp_path, name, text):
    raw = write_texts(tmp_path)
    (raw / f"{name}.txt").write_bytes(text)
    with pytest.raises(WrongAnnotation):
        films(raw)


def test_the_split_is_by_person_and_all_fifteen_text_files_are_fetched():
    lists = splits("hdtf").lists
    persons = [pattern.removesuffix("/*") for split in ("train", "val", "test") for pattern in lists[split]]
    assert len(persons) == len(set(persons)) == 220
    assert not any(re.search(r"\d", person) for person in persons)
    assert "Radio/*" in lists["train"]
    assert "WhipJimClyburn" not in persons
    assert (len(lists["val"]), len(lists["test"])) == (13, 26)
    sources = manifest("hdtf").sources
    assert {source["file"].removesuffix(".txt") for source in sources[:-1]} == set(TEXTS)
    assert all(len(source["sha256"]) == 64 and source["http"].endswith(source["file"]) for source in sources[:-1])
    assert sources[-1] == {"youtube": "videos"}
    assert {name.partition("_")[0] for name in ALIVE} == set(SETS)
