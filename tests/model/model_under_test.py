import dataclasses

import torch

from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import BlstmConfig, ClassifierConfig, EncoderConfig, MlpConfig, TdnnConfig
from speechattn.phones import PhoneSet

SMALL = ClassifierConfig(
    phones="timit39",
    encoder=EncoderConfig(dim=16, layers=2, heads=2, left=4, right=3, feed_forward=24, conv_kernel=5),
    blstm=BlstmConfig(width=8, layers=2),
    tdnn=TdnnConfig(width=16, layers=((5, 1), (3, 2))),
    mlp=MlpConfig(width=16, layers=1),
)


KINDS = ("encoder", "blstm", "tdnn", "mlp", "linear")


NORMALISATIONS = ("none", "utterance", "global")


POOLINGS = ("none", "mean", "attention")


VARIANTS = [*((normalisation, "none") for normalisation in NORMALISATIONS), ("none", "mean"), ("none", "attention")]


SYMBOLS = PhoneSet.load("timit39").symbols


def classifier(kind: str = "encoder", *, normalisation: str = "utterance", **changes: object) -> FrameClassifier:
    frontend = dataclasses.replace(SMALL.frontend, normalisation=normalisation)
    model = FrameClassifier(dataclasses.replace(SMALL, symbols=SYMBOLS, kind=kind, frontend=frontend, **changes)).eval()
    if normalisation == "global":
        model.frontend.set_statistics(torch.linspace(-5, 60, 39), torch.linspace(300, 2, 39))
    return model


def noise(num_samples: int, seed: int = 0) -> torch.Tensor:
    """Noise that changes its loudness and its spectrum, so that the phones change too."""
    samples = torch.randn(num_samples, generator=torch.Generator().manual_seed(seed))
    time = torch.arange(num_samples) / 16000
    return 0.1 * (1.2 + torch.sin(25 * time)) * (samples + torch.sin(11 * time) * samples.roll(1)) / 2
