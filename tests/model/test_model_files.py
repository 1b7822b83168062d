import dataclasses
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from model_under_test import KINDS, SMALL, VARIANTS, classifier, noise

from speechattn.decoding.smoothing import phonotactics_of
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig
from speechattn.phones import PhoneSet


@pytest.mark.parametrize(("normalisation", "pooling"), VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same_model(kind: str, normalisation: str, pooling: str, tmp_path: Path) -> None:
    model = classifier(kind, normalisation=normalisation, pooling=pooling)
    model.train().save_pretrained(tmp_path / "new" / "model")
    assert sorted(path.name for path in (tmp_path / "new/model").iterdir()) == ["config.json", "model.safetensors"]
    loaded = FrameClassifier.from_pretrained(tmp_path / "new" / "model")
    assert loaded.config == model.config and loaded.phones == model.phones
    assert not loaded.training and not any(part.training for part in loaded.modules())
    weights, expected = loaded.state_dict(), model.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert torch.equal(loaded(noise(4000))[0], model.eval()(noise(4000))[0])


def test_symbols_are_saved_with_the_model(tmp_path: Path) -> None:
    custom = FrameClassifier(dataclasses.replace(SMALL, phones="mine", symbols=("x", "SIL", "a")))
    custom.save_pretrained(tmp_path)
    assert FrameClassifier.from_pretrained(str(tmp_path)).phones.symbols == ("x", "SIL", "a")
    assert FrameClassifier(SMALL).config.symbols == PhoneSet.load("timit39").symbols


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model."""
    FrameClassifier(dataclasses.replace(SMALL, kind="mlp")).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def one_line(name: str | Path) -> str:
    """The error that loading ends with."""
    with pytest.raises(ValueError) as caught:
        FrameClassifier.from_pretrained(name)
    message = str(caught.value)
    assert "\n" not in message and str(name) in message
    return message


def test_a_model_that_no_longer_comes_with_the_package_says_where_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "use english-small" in one_line("speechocean762-small")
    (tmp_path / "speechocean762-small").mkdir()  # of results, say
    assert "recipes/speechocean762/conf/long.yaml" in one_line("speechocean762-small")
    FrameClassifier(dataclasses.replace(SMALL, kind="mlp")).save_pretrained(tmp_path / "speechocean762-small")
    assert FrameClassifier.from_pretrained("speechocean762-small").config.kind == "mlp"


def change_config(folder: Path, change: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"colour": "red"}, "colour"),
        ({"encoder": {"shape": 3}}, "shape"),
        ({"encoder": 3}, ""),
        ({"kind": "gru"}, "model.kind must be one of encoder, blstm, tdnn, mlp, linear, got 'gru'"),
        ({"kind": "encoder"}, "body"),  # other weights than the file's
        ({"symbols": ["aa", "aa"]}, "aa"),
        ({"phones": "timit38", "symbols": []}, "timit38"),
        ({"mlp": {"width": 17}}, "size mismatch"),
        ({"kind": "tdnn", "tdnn": {"layers": [[2, 1]]}}, "tdnn.layers must have an odd kernel"),
        ({"mlp": {"width": "many"}}, ""),
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_one_line(folder: Path, change: dict, reason: str) -> None:
    change_config(folder, change)
    assert reason in one_line(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"model"', "{}"])
def test_a_config_that_is_none_is_one_line(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    one_line(folder)


def test_damaged_or_missing_weights_are_one_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:9], b"", b"not weights at all", whole + b"\0"):
        weights.write_bytes(damaged)
        one_line(folder)
    weights.unlink()
    assert "model.safetensors" in one_line(folder)


def test_no_model_there_is_one_line_without_asking_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("the Hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in (tmp_path / "nowhere", tmp_path / "file", "nowhere", "./a/b", "a/b/c", "~/a", "/a", "empty/folder"):
        assert one_line(name).endswith("a folder with config.json and model.safetensors is needed")
    assert one_line("exp/model").endswith("is needed; a model on the Hugging Face Hub is written hf:exp/model")


def test_an_id_asks_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog) -> None:
    asked = []

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    caplog.set_level("INFO", logger="speechattn")
    assert FrameClassifier.from_pretrained("hf:owner/name").config.kind == "mlp"
    assert asked == [("owner/name", ["config.json", "model.safetensors", "phonotactics.json"])]
    assert (
        f"hf:owner/name: loading config.json, model.safetensors from the Hugging Face Hub, revision {folder.name}"
        in (caplog.text)
    )

    def fails(name: str, allow_patterns: list[str]) -> str:
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    assert one_line("hf:owner/name").endswith("cannot be loaded from the Hugging Face Hub: no route to host")


def test_a_failed_save_leaves_what_was_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full_disk(path: Path, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    for where in (folder, tmp_path / "new"):
        with pytest.raises(OSError, match="no space left"):
            classifier().save_pretrained(where)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list((tmp_path / "new").iterdir()) == []
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="needs the permissions of POSIX")
def test_others_can_read_a_saved_model(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        classifier().save_pretrained(tmp_path / "model")
    finally:
        os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o644}


def test_phonotactics_lie_beside_the_model_they_belong_to(tmp_path):
    model = FrameClassifier(ClassifierConfig(kind="linear", phones="timit39"))
    model.phonotactics = phonotactics_of([np.repeat([0, 1, 2], 5)], 39)
    model.save_pretrained(tmp_path)
    assert FrameClassifier.from_pretrained(tmp_path).phonotactics == model.phonotactics
    other = FrameClassifier(ClassifierConfig(kind="linear", phones="timit48"))
    other.phonotactics = phonotactics_of([np.repeat([0, 1, 2], 5)], 39)
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"phonotactics.json is not for its 48 phones"):
        FrameClassifier.from_pretrained(tmp_path)
    other.phonotactics = None
    other.save_pretrained(tmp_path)
    assert FrameClassifier.from_pretrained(tmp_path).phonotactics is None


def test_settings_that_only_older_versions_had_are_ignored_in_a_saved_model() -> None:
    config = ClassifierConfig(encoder=EncoderConfig(dim=16, heads=2))
    saved = dataclasses.asdict(config)
    saved["encoder"]["layer_drop"] = 0.1
    assert ClassifierConfig.from_dict(saved) == config
    saved["encoder"]["layers_drop"] = 0.1
    with pytest.raises(TypeError, match="layers_drop"):
        ClassifierConfig.from_dict(saved)
