"""Where encoders come from: a hub once, a folder, a package; and what is said when they do not."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.speech import moonshine
from models.speech.base import EncoderMissing
from models.speech.encoders import NAMES, encoder, fetch
from models.speech.features import speech_features
from models.speech.hub import FILES, HUB, WEIGHTS, HubEncoder
from tests.models.speech.untrained import save, speech_like, untrained

ADDRESSES = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


class Hub(SimpleHTTPRequestHandler):
    """Answers as a model hub does: /<repository>/resolve/<commit>/<file>, and which commit that is."""

    asked: list[str]

    def send_head(self):
        if "/resolve/" in self.path:
            self.asked.append(self.path)
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("X-Repo-Commit", Path(self.path).parent.name)
        self.send_header("ETag", f'"{Path(self.path).name}"')
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub's address, and the files it is asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(type("Asked", (Hub,), {"asked": asked}), directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_hub_is_asked_once_and_for_one_commit(tmp_path, monkeypatch):
    repository, commit = HUB["hubert-large"]
    save(untrained("hubert-large"), tmp_path / "hub" / repository / "resolve" / commit)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(tmp_path / "hub") as (address, asked):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", ADDRESSES.format(address))
        folder = fetch("hubert-large")
        assert {path.partition("/resolve/")[2] for path in asked} == {f"{commit}/{file}" for file in FILES}
        before = len(asked)
        assert fetch("hubert-large") == folder
        assert len(asked) == before
    assert speech_features(HubEncoder(fetch("hubert-large"), -1, "cpu"), speech_like(1), 50).shape == (50, 32)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "another cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderMissing) as error:
        fetch("hubert-large")
    assert f"hf download {repository} {' '.join(FILES)} --revision {commit} --local-dir DIR" in str(error.value)
    assert "speech.folder in params.yaml" in str(error.value)
    assert "moonshine-tiny" in str(error.value)


def test_weights_of_an_older_transformers_and_of_a_recogniser_are_read(tmp_path):
    """As the hub has them: below `hubert.`, the weight norm in its old names, with a head, without the mask's embedding."""
    save(untrained("hubert-large"), tmp_path / "new")
    save(untrained("hubert-large"), tmp_path / "old")
    weights = load_file(tmp_path / "old" / WEIGHTS)
    weights.pop("masked_spec_embed")
    renamed = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in renamed.items():
        weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
    assert sum("weight_g" in name for name in weights) == 1
    weights = {f"hubert.{name}": tensor for name, tensor in weights.items()}
    save_file(weights | {"lm_head.weight": torch.zeros(32, 32)}, tmp_path / "old" / WEIGHTS, {"format": "pt"})
    sound = speech_like(1)
    new, old = (speech_features(encoder("hubert-large", -1, str(tmp_path / folder)), sound, 50) for folder in ("new", "old"))
    assert (new == old).all()


def test_a_folder_that_is_not_what_it_should_be_says_so(tmp_path):
    with pytest.raises(EncoderMissing, match=r"config\.json does not exist: speech\.folder"):
        encoder("hubert-base", -1, str(tmp_path / "nowhere"))

    pickled = save(untrained("hubert-base"), tmp_path / "pickled")
    torch.save(load_file(pickled / WEIGHTS), pickled / "pytorch_model.bin")
    (pickled / WEIGHTS).unlink()
    with pytest.raises(EncoderMissing, match=r"model\.safetensors does not exist.*pytorch_model\.bin, are not read"):
        encoder("hubert-base", -1, str(pickled))

    cut = save(untrained("hubert-base"), tmp_path / "cut")
    (cut / WEIGHTS).write_bytes((cut / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(EncoderMissing, match=r"cut cannot be read.*Fetch it again"):
        encoder("hubert-base", -1, str(cut))

    lacking = save(untrained("hubert-base"), tmp_path / "lacking")
    weights = load_file(lacking / WEIGHTS)
    name = "encoder.layers.1.attention.q_proj.weight"
    save_file({key: value for key, value in weights.items() if key != name}, lacking / WEIGHTS, {"format": "pt"})
    with pytest.raises(EncoderMissing, match=rf"lacks 1 tensors of a hubert, such as {name}"):
        encoder("hubert-base", -1, str(lacking))

    other = save(untrained("hubert-base"), tmp_path / "other")
    (other / "config.json").write_text((other / "config.json").read_text().replace('"hubert"', '"bert"'))
    with pytest.raises(EncoderMissing, match="is of a 'bert'"):
        encoder("hubert-base", -1, str(other))

    telephone = save(untrained("hubert-base"), tmp_path / "telephone")
    settings = telephone / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("16000", "8000"))
    with pytest.raises(EncoderMissing, match="hears 16000 Hz"):
        encoder("hubert-base", -1, str(telephone))


def test_what_cannot_be_asked_for(tmp_path):
    folder = str(save(untrained("wav2vec2-base"), tmp_path / "base"))
    with pytest.raises(ValueError, match=r"has the layers 0 to 3, and -1 for its output; not 4"):
        encoder("wav2vec2-base", 4, folder)
    with pytest.raises(ValueError, match=rf"no speech encoder 'whisper'; there are {', '.join(NAMES)}"):
        encoder("whisper")
    with pytest.raises(ValueError, match="gives its output alone"):
        encoder(moonshine.NAME, 3)
    with pytest.raises(ValueError, match="stands in its package"):
        fetch(moonshine.NAME, folder)


def test_an_encoder_is_loaded_once_in_a_process(tmp_path):
    folder = str(save(untrained("wav2vec2-base"), tmp_path / "base"))
    assert encoder("wav2vec2-base", -1, folder) is encoder("wav2vec2-base", -1, folder)


def test_another_version_of_a_package_is_noticed(monkeypatch):
    monkeypatch.setattr(moonshine, "SHA256", "0" * 64)
    with pytest.raises(EncoderMissing, match=r"encoder_model\.ort is not that of moonshine-voice==0\.0\.73: pip install"):
        fetch(moonshine.NAME)
