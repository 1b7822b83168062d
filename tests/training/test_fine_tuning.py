"""What a fine-tuned model begins with."""

from pathlib import Path

import pytest
import torch

from speechattn import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.training.fine_tuning import model_to_tune


@pytest.fixture
def start(tmp_path: Path) -> FrameClassifier:
    torch.manual_seed(0)
    model = FrameClassifier(ClassifierConfig(kind="mlp", phones="abc", symbols=("SIL", "AA", "aa", "S", "M")))
    model.save_pretrained(tmp_path / "start")
    return model


@pytest.mark.parametrize(
    "symbols, rows",
    [
        (("sil", "AA", "aa", "x"), {0: 0, 1: 1, 2: 2}),  # the same letters go before the same letter in another case
        (("x", "m", "s"), {1: 4, 2: 3}),
        (("x", "y"), {}),
        (("M", "S", "aa", "AA", "SIL"), {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}),  # the same phones stay in their order
    ],
)
def test_output_is_kept_for_the_phones_that_stay_and_fresh_for_the_others(start, tmp_path, symbols, rows):
    torch.manual_seed(1)
    model = model_to_tune(ClassifierConfig(phones="other", symbols=symbols), tmp_path / "start")
    assert set(model.phones.symbols) == set(symbols)
    for new in range(len(symbols)):
        same = [old for old in range(5) if torch.equal(model.output.weight[new], start.output.weight[old])]
        assert same == ([rows[new]] if new in rows else [])
        if new in rows:
            assert model.output.bias[new] == start.output.bias[rows[new]]
    body = {name: value for name, value in start.state_dict().items() if not name.startswith("output.")}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in body.items())


def test_named_sets_share_phones_too(tmp_path):
    FrameClassifier(ClassifierConfig(kind="linear", phones="arpabet41")).save_pretrained(tmp_path / "start")
    start = FrameClassifier.from_pretrained(tmp_path / "start")
    model = model_to_tune(ClassifierConfig(phones="timit39"), tmp_path / "start")
    pairs = {"aa": "AA", "sil": "SIL", "sh": "SH", "y": "Y"}
    for new, old in pairs.items():
        row, other = model.phones.symbols.index(new), start.phones.symbols.index(old)
        assert torch.equal(model.output.weight[row], start.output.weight[other])
    dx = model.output.weight[model.phones.symbols.index("dx")]  # a flap, which CMUdict has not
    assert not (start.output.weight == dx).all(dim=1).any()
