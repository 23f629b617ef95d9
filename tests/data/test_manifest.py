"""Manifests and split lists say what they mean or are refused."""

import pytest
import yaml

from data import manifest as module
from data.manifest import Manifest, WrongManifest, corpora, manifest, splits

LICENCE = {"name": "CC0", "page": "https://example.org"}


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """Writes a file of a `data/` of its own."""
    monkeypatch.setattr(module, "HERE", tmp_path)

    def write(name: str, value: dict) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(value))

    return write


def test_a_manifest_says_only_what_differs_from_the_one_it_is_like(committed):
    committed("manifests/grid.yaml", {"about": "a", "licence": LICENCE, "crop": "face", "sources": [{"http": "https://x/s1"}]})
    committed("manifests/grid_s1.yaml", {"like": "grid", "settings": {"speakers": ["s1"]}})
    committed("manifests/grid_s1_wide.yaml", {"like": "grid_s1", "crop": "portrait"})
    whole, one, wide = (manifest(name) for name in ("grid", "grid_s1", "grid_s1_wide"))
    assert (whole.adapter, whole.split) == ("grid", "grid")
    assert (one.adapter, one.split, one.settings, one.sources) == ("grid", "grid_s1", {"speakers": ["s1"]}, whole.sources)
    assert (wide.adapter, wide.split, wide.crop, wide.settings) == ("grid", "grid_s1_wide", "portrait", one.settings)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"about": "a", "licence": LICENCE, "crop": "face", "sources": [], "url": "x"}, "x has url"),
        ({"about": "a", "licence": LICENCE, "crop": "face"}, "sources"),
        ({"about": "a", "licence": LICENCE | {"terms": 1}, "crop": "face", "sources": []}, "terms"),
    ],
)
def test_a_wrong_manifest_is_refused_by_name(committed, said, complaint):
    committed("manifests/x.yaml", said)
    with pytest.raises(WrongManifest, match=complaint):
        manifest("x")


def test_a_corpus_without_manifest_is_told(committed):
    with pytest.raises(FileNotFoundError, match=r"grid.yaml.*README"):
        manifest("grid")


@pytest.mark.parametrize("corpus", corpora())
def test_every_committed_corpus_has_its_three_files(corpus):
    known = manifest(corpus)
    assert isinstance(known, Manifest)
    assert known.licence.name and known.about and known.sources
    assert splits(known.split)
    assert (module.HERE / "corpora" / f"{known.adapter}.py").exists()


def test_a_clip_s_own_name_beats_a_pattern(committed):
    committed("splits/x.yaml", {"origin": "ours", "train": ["s1/*"], "val": ["s2/*"], "test": ["s1/b"], "excluded": ["s1/c"]})
    found = splits("x").divide([(f"{speaker}/{name}", 1.0) for speaker in ("s1", "s2") for name in "abc"])
    assert found == {
        **{"s1/a": "train", "s1/b": "test", "s1/c": "excluded"},
        **{"s2/a": "val", "s2/b": "val", "s2/c": "val"},
    }


@pytest.mark.parametrize(
    ("lists", "complaint"),
    [
        ({"train": ["s1/*"]}, r"s2/a is in no list"),
        ({"train": ["s?/*"], "val": ["s2/*"]}, r"s2/a is in train and val"),
    ],
)
def test_a_clip_in_no_list_or_in_two_is_an_error_that_names_it(committed, lists, complaint):
    committed("splits/x.yaml", lists)
    with pytest.raises(WrongManifest, match=complaint):
        splits("x").divide([("s1/a", 1.0), ("s2/a", 1.0)])


def test_a_name_given_twice_and_a_list_of_another_name_are_refused(committed):
    committed("splits/x.yaml", {"train": ["s1/a"], "test": ["s1/a"]})
    with pytest.raises(WrongManifest, match="s1/a twice"):
        splits("x")
    committed("splits/y.yaml", {"train": [], "valid": []})
    with pytest.raises(WrongManifest, match="has valid"):
        splits("y")


def test_every_nth_clip_of_a_list_moves_to_another(committed):
    committed("splits/x.yaml", {"train": ["a/*"], "test": ["b/*"], "every": {"from": "train", "to": "val", "n": 3}})
    clips = [(f"a/{i}", 1.0) for i in range(7)] + [("b/0", 1.0)]
    found = splits("x").divide(reversed(clips))
    assert [key for key, split in found.items() if split == "val"] == ["a/2", "a/5"]
    assert found["b/0"] == "test"


def test_in_time_cuts_each_speaker_where_the_shares_of_the_seconds_end(committed):
    committed("splits/x.yaml", {"in_time": {"train": 10, "val": 0.5, "test": 0.5}})
    clips = [(f"{who}/{i:03d}", seconds) for who, seconds, count in [("a", 5.0, 44), ("b", 2.0, 22)] for i in range(count)]
    found = splits("x").divide(clips)
    for who, count in (("a", 44), ("b", 22)):
        of_speaker = [found[f"{who}/{i:03d}"] for i in range(count)]
        assert of_speaker == ["train"] * (count * 10 // 11) + ["val"] * (count // 22) + ["test"] * (count // 22)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, ["test"]), (2, ["val", "test"]), (3, ["train", "val", "test"]), (5, ["train", "train", "train", "val", "test"])],
)
def test_a_short_film_still_has_something_to_be_tested_on(committed, count, expected):
    committed("splits/x.yaml", {"in_time": {"train": 10, "val": 0.5, "test": 0.5}})
    found = splits("x").divide([(f"a/{i}", 4.0) for i in range(count)])
    assert [found[f"a/{i}"] for i in range(count)] == expected
