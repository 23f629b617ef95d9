"""The catalogue lists every clip of a corpus, and every one that cannot be used with its reason."""

import json
import os

import pytest
import yaml

from data import manifest as committed
from data.corpora import Refused, UnsafeFile, safe_key, source_clip
from data.manifest import manifest
from data.shardset import json_object
from stages import clips
from stages.catalogue import read_catalogue
from stages.clips import NoClips, list_clips


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A corpus of the sample's layout whose manifest can be changed, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(committed, "HERE", tmp_path / "data")
    raw = tmp_path / "data/raw/tiny"
    raw.mkdir(parents=True)
    (tmp_path / "data/manifests").mkdir()
    (raw / "a.mp4").write_bytes(b"a film")

    def write(**said):
        said = {
            "about": "tiny",
            "licence": {"name": "CC0"},
            "adapter": "sample",
            "crop": "face",
            "sources": [],
            "settings": {"clips": [{"key": f"one/{i}", "file": "a.mp4", "start": i, "end": i + 1.0} for i in range(3)]},
        } | said
        (tmp_path / "data/manifests/tiny.yaml").write_text(yaml.safe_dump(said))
        return raw

    return write


def test_what_is_known_to_be_bad_is_left_out_with_its_reason(corpus):
    corpus(known_bad={"one/0": "grey picture", "2": "no sound"})
    clips.run("tiny")
    catalogue = read_catalogue("tiny")
    assert catalogue.crop == "face"
    assert [clip.key for clip in catalogue.clips] == ["one/1"]
    assert {key: (why.reason, why.detail) for key, why in catalogue.left_out.items()} == {
        "one/0": ("known to be bad", "grey picture"),
        "one/2": ("known to be bad", "no sound"),
    }
    source = json_object(catalogue.clips[0].members["json"])
    assert (source["path"], source["start"], source["end"], source["crop"]) == ("data/raw/tiny/a.mp4", 1, 2.0, "face")


def test_the_catalogue_is_the_same_on_every_run_and_changes_with_the_files(corpus, tmp_path):
    raw = corpus()
    written = tmp_path / "data/clips/tiny/clips.json"
    clips.run("tiny")
    first = written.read_bytes()
    os.utime(raw / "a.mp4", (1, 1))
    clips.run("tiny")
    assert written.read_bytes() == first
    (raw / "a.mp4").write_bytes(b"b film")
    clips.run("tiny")
    assert json.loads(written.read_bytes())["clips"] != json.loads(first)["clips"]


def test_a_corpus_without_pictures_has_no_crop(corpus):
    corpus(crop="none")
    clips.run("tiny")
    assert read_catalogue("tiny").crop is None


def test_an_empty_corpus_is_an_error_that_says_where_to_look(corpus):
    corpus(known_bad={str(i): "grey picture" for i in range(3)})
    with pytest.raises(NoClips, match=r"(?s)3 were refused.*one/0: known to be bad \(grey picture\).*data/manifests/tiny.yaml"):
        clips.run("tiny")


def test_two_clips_of_one_name_are_an_error(corpus):
    twice = [{"key": "one/0", "file": "a.mp4", "start": i, "end": i + 1.0} for i in range(2)]
    raw = corpus(settings={"clips": twice})
    with pytest.raises(ValueError, match="two clips named one/0"):
        list_clips(manifest("tiny"), raw)


def test_files_beside_the_source_are_known_by_their_content(corpus):
    raw = corpus()
    (raw / "motion.npy").write_bytes(b"motion")
    clip = source_clip("one/0", raw, "a.mp4", beside={"vertices": "motion.npy"}, transcript="hello")
    source = json_object(clip.members["json"])
    assert source["transcript"] == "hello"
    assert source["beside"]["vertices"]["path"].endswith("motion.npy")
    assert len(source["beside"]["vertices"]["sha256"]) == 64


def test_a_file_that_is_not_there_or_leads_away_is_refused_by_name(corpus, tmp_path):
    raw = corpus()
    with pytest.raises(FileNotFoundError, match=r"one/0.*gone.mp4"):
        source_clip("one/0", raw, "gone.mp4")
    (tmp_path / "secret").write_text("secret")
    (raw / "link.mp4").symlink_to(tmp_path / "secret")
    for file in ("link.mp4", "../../../secret"):
        with pytest.raises(UnsafeFile, match="outside of its corpus"):
            source_clip("one/0", raw, file)


@pytest.mark.parametrize("word", ["a b", "a\nb", "ä", "", "__x", "x" * 200, "../..", "a.b", "\udce4"])
def test_any_words_make_a_safe_key_and_no_two_the_same(word):
    refused = Refused(safe_key(word, word), "damaged")
    assert refused.key.count("/") == 1
    assert safe_key(word, "x") != safe_key(word + "!", "x")
    assert safe_key("s1", "bbaf2n") == "s1/bbaf2n"
