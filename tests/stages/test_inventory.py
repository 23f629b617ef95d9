"""What `talkingface datasets` says of a corpus follows from its manifest and from what is on the disk."""

import json

import pytest
import yaml

from data import manifest as committed
from stages import inventory
from stages.inventory import Holding, holdings

LICENCE = {"name": "CC0", "page": "https://example.org/terms"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for module in (committed, inventory):
        monkeypatch.setattr(module, "HERE", tmp_path / "data")
    (tmp_path / "data/manifests").mkdir(parents=True)
    return tmp_path


def one(project, sources, listed=True, accept=False) -> Holding:
    said = {"about": "tiny", "licence": LICENCE | {"accept": accept}, "crop": "face", "sources": sources}
    (project / "data/manifests/tiny.yaml").write_text(yaml.safe_dump(said))
    (holding,) = holdings(["tiny"] if listed else [])
    return holding


def fetched(project, files=(), videos=()):
    """As the download stage records it."""
    raw = project / "data/raw/tiny"
    raw.mkdir(parents=True)
    (raw / "a.zip").write_bytes(b"0" * 1000)
    entry = {"url": "u", "date": "d"}
    record = {
        "licence": {},
        "files": {f"f{i}": entry | {"status": status, "bytes": 1, "sha256": "0"} for i, status in enumerate(files)},
        "videos": {f"v{i}": entry | {"status": status} for i, status in enumerate(videos)},
    }
    (project / "data/fetched").mkdir()
    (project / "data/fetched/tiny.json").write_text(json.dumps(record))


def test_a_corpus_that_is_not_here_says_what_it_takes(project, monkeypatch):
    monkeypatch.delenv("TINY_PASSWORD", raising=False)
    source = {"http": "https://x/a.zip", "file": "a.zip", "bytes": 5_000_000_000, "form": {"password": "TINY_PASSWORD"}}
    holding = one(project, [source], listed=False, accept=True)
    assert (holding.state, holding.size, holding.here, holding.clips) == ("not here", 5_000_000_000, 0, None)
    for word in ("params.yaml", "example.org/terms", "TINY_PASSWORD", "TALKINGFACE_ACCEPT_LICENCE=tiny", "verify@tiny"):
        assert word in holding.next


def test_files_to_be_placed_by_hand_are_named_with_their_folder(project):
    holding = one(project, [{"manual": ["a.tgz"], "or": [["wav/*.wav", "b.pkl"]], "why": "withdrawn", "page": "p"}])
    assert "place a.tgz or wav/*.wav, b.pkl in data/raw/tiny" in holding.next


def test_the_size_of_a_listed_source_is_the_sum_of_its_lines(project):
    (project / "data/manifests/tiny.txt").write_text("00 700 a.flv\n11 300 b.flv\n")
    assert one(project, [{"list": "tiny.txt", "base": "https://x/"}]).size == 1000


def test_a_fetched_corpus_has_nothing_left_but_its_stages(project):
    fetched(project, files=["downloaded", "by_hand"])
    holding = one(project, [])
    assert (holding.state, holding.here, holding.next) == ("fetched", 1000, "dvc repro verify@tiny")


def test_videos_that_are_gone_are_counted_by_their_reason(project):
    fetched(project, videos=["downloaded", "gone", "gone", "geo_blocked"])
    holding = one(project, [])
    assert holding.state == "1 of 4 files: 2 gone, 1 geo blocked"
    assert "data/raw/tiny/videos" in holding.next
