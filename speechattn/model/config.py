"""Everything that makes a `FrameClassifier` but its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from speechattn.frontend import FrontendConfig
from speechattn.geometry import Geometry
from speechattn.model.baselines import BlstmConfig, MlpConfig, TdnnConfig
from speechattn.model.encoder import EncoderConfig
from speechattn.phones import PhoneSet

__all__ = ["ClassifierConfig"]

KINDS = ("encoder", "blstm", "tdnn", "mlp", "linear")
POOLINGS = ("none", "mean", "attention")


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape and names of a model.

    Args:
        phones: Name of the phone set, or a file with a phone a line, see `PhoneSet.load`; not used with pooling.
        symbols: The phones, index = class; empty: those of the named set. With pooling: the labels.
        kind: The body: `encoder` (truncated self-attention), or a baseline: `blstm`, `tdnn`, `mlp` (one frame or a
            window of frames), `linear` (one frame).
        frontend: The features; None: the model takes features that are ready made, not waveforms.
        feature_dim: Values in a frame of ready features; not used with a front end.
        encoder: Shape of the encoder, if that is the body.
        blstm: Shape of the bidirectional LSTM, if that is the body.
        tdnn: Shape of the time-delay network, if that is the body.
        mlp: Shape of the MLP, if that is the body.
        pooling: `none`: a phone for every frame; `mean` or `attention` over the frames: one label for the utterance.
        temperature: What logits are divided by before their softmax gives posteriors; training learns it on dev when
            it ends, whatever it was, see `calibration`.

    Raises:
        ValueError: When a field is out of its range.
    """

    phones: str = "arpabet41"
    symbols: tuple[str, ...] = ()
    kind: str = "encoder"
    frontend: FrontendConfig | None = field(default_factory=FrontendConfig)
    feature_dim: int = 39
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    blstm: BlstmConfig = field(default_factory=BlstmConfig)
    tdnn: TdnnConfig = field(default_factory=TdnnConfig)
    mlp: MlpConfig = field(default_factory=MlpConfig)
    pooling: str = "none"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"model.kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.pooling not in POOLINGS:
            raise ValueError(f"model.pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")
        if self.pooling != "none" and not self.symbols:
            raise ValueError(f"model.pooling {self.pooling!r} needs the labels of utterances in model.symbols")
        if self.feature_dim < 1:
            raise ValueError(f"model.feature_dim must be at least 1, got {self.feature_dim}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"model.temperature must be positive and finite, got {self.temperature}")
        if self.frontend is not None and self.frontend.normalisation == "speaker":
            raise ValueError("model.frontend.normalisation must not be 'speaker': a model hears unknown speakers")
        if self.frontend is not None and self.frontend.kind == "spectrogram":
            raise ValueError("model.frontend.kind must be mfcc or fbank: a spectrogram has no log-mel energies")
        if not self.symbols and (phones := PhoneSet.load(self.phones)).name == "custom":
            # A file's phones are part of the configuration, and not where the file lay.
            object.__setattr__(self, "phones", phones.name)
            object.__setattr__(self, "symbols", phones.symbols)
        object.__setattr__(self, "symbols", tuple(self.symbols))  # a list, when it comes from JSON

    @property
    def geometry(self) -> Geometry:
        """Where the frames lie; those of ready features are taken to lie as the default geometry says."""
        return Geometry() if self.frontend is None else self.frontend.geometry

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierConfig:
        """The inverse of `dataclasses.asdict`, as read back from JSON. An unknown key is a TypeError."""
        if not isinstance(values, dict):
            raise TypeError(f"settings by name are needed, got {values!r}")
        parts = {
            "frontend": FrontendConfig, "encoder": EncoderConfig, "blstm": BlstmConfig, "tdnn": TdnnConfig, "mlp": MlpConfig
        }  # fmt: skip
        built = {key: part(**values[key]) for key, part in parts.items() if values.get(key) is not None}
        return cls(**{**values, **built})
