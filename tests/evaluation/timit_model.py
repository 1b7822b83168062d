"""An untrained model of TIMIT's phones."""

import torch

from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig, EncoderConfig


def timit_model(phones: str) -> FrameClassifier:
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3)
    model = FrameClassifier(ClassifierConfig(phones=phones, encoder=encoder)).eval()
    with torch.no_grad():
        for symbol, bias in (("q", 3.0), ("ix", 1.0), ("ih", 1.0), ("tcl", 1.0), ("h#", 1.0), ("cl", 1.0)):
            if symbol in model.phones.symbols:
                model.output.bias[model.phones.symbols.index(symbol)] = bias
    return model
