"""Positions must not harm what begins late: long recordings and live speech."""

from dataclasses import replace

import pytest

from benchmarks.positions import accuracy, late
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import EncoderConfig
from speechattn.training.run import train


@pytest.mark.parametrize("position", ["sinusoidal", "learned"])
def test_a_trained_model_is_as_accurate_late_in_a_recording(position, config, tone_corpus):
    encoder = EncoderConfig(
        dim=32, layers=2, heads=2, left=4, right=4, feed_forward=32, conv_kernel=3, position=position, dropout=0.0
    )
    folder = train(replace(config, model=replace(config.model, encoder=encoder)))
    at_start, *later = (
        accuracy(late(FrameClassifier.from_pretrained(folder), offset_s), tone_corpus / "test.jsonl.gz")
        for offset_s in (0, 30, 360)
    )
    assert at_start > 0.9 and max(abs(share - at_start) for share in later) < 0.01
