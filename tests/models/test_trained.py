from dataclasses import replace

import pytest

from models.given import Given
from models.head.generate import load
from tests.models.head.corpus import CONFIG, write_corpus
from tests.models.trained import trained


def test_what_is_compared_is_trained_once_and_as_the_bench_says(tmp_path):
    shards = write_corpus(tmp_path / "shards", [3])
    given, folder, config = Given(shards, shards), tmp_path / "kept" / "head", replace(CONFIG, steps=1, val_every=1)
    assert trained("head", config, given, folder) == folder
    assert load(folder).config == config
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    trained("head", config, given, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="delete it"):
        trained("head", CONFIG, given, folder)
