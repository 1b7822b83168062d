"""The shape of every model: `ClassifierConfig` and the configuration of each kind of body."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from speechattn.attention.positions import POSITIONS
from speechattn.frontend import FrontendConfig
from speechattn.geometry import Geometry
from speechattn.phones import PHONE_SETS, PhoneSet

__all__ = ["ENCODER_PRESETS", "BlstmConfig", "ClassifierConfig", "EncoderConfig", "MlpConfig", "TdnnConfig"]

KINDS = ("encoder", "blstm", "tdnn", "mlp", "linear")
POOLINGS = ("none", "mean", "attention")
INPUT_POSITIONS = ("sinusoidal", "learned")  # added to the encoder's input; the others act in each layer
ACTIVATIONS = ("silu", "gelu", "swiglu")

T = TypeVar("T")


def exceeds(context: int | None, limit: int | None) -> bool:
    """Whether one context is wider than another; None is unlimited."""
    return limit is not None and (context is None or context > limit)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _check_dropout(section: str, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"{section}.dropout must lie in [0, 1), got {dropout}")


def _pairs(values: Iterable[Iterable[T]], name: str, contents: str) -> tuple[tuple[T, T], ...]:
    """Pairs as tuples; YAML and JSON give lists."""
    try:
        return tuple((first, second) for first, second in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be pairs of {contents}, got {values!r}") from None


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an `Encoder`.

    Args:
        dim: Features D of every layer.
        layers: Number of blocks.
        heads: Attention heads; must divide `dim`.
        stack: Consecutive frames per encoder step (Sak et al. 2015). The output has one vector per frame again.
            Contexts, `conv_kernel` and `max_positions` count steps.
        input_context: Additional input frames on either side of a step, in frames.
        left: Left context of each attention layer, in steps; null for all.
        right: Right context of each attention layer, in steps; null for all.
        context: (left, right) per layer, first layer first; overrides `left` and `right` unless empty.
        rights: Right contexts that training draws from, one per batch, shared by all layers. The trained model can then
            be limited to any of them, see `Encoder.limit_right`. None may exceed `right`. Empty: always `right`.
        score: See `TruncatedSelfAttention`.
        normaliser: See `TruncatedSelfAttention`.
        position: `none`; `relative` or `rotary`, in each attention layer; `sinusoidal` or `learned`, added to the
            encoder's input. The last two depend on the time since the start of the recording; training starts each
            utterance at a random time, so that long recordings and streams are as accurate as short ones.
        max_positions: Rows of the table of learned positions. Step t takes row t mod `max_positions`: longer input
            repeats them.
        feed_forward: Hidden width of the feed-forward module.
        activation: `silu`, `gelu`, or `swiglu`, which is gated and has half as many parameters again at the same width.
        conv_kernel: Taps of the depthwise convolution, odd; 0 for no convolution.
        dropout: Share of features dropped in training, [0, 1), with one mask for all frames of an utterance, see
            `VariationalDropout`.
        attention_dropout: Share of attention weights dropped in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    dim: int = 144
    layers: int = 4
    heads: int = 4
    stack: int = 1
    input_context: int = 0
    left: int | None = 16
    right: int | None = 16
    context: tuple[tuple[int | None, int | None], ...] = ()
    rights: tuple[int | None, ...] = ()
    score: str = "dot"
    normaliser: str = "softmax"
    position: str = "rotary"
    max_positions: int = 1000
    feed_forward: int = 576
    activation: str = "silu"
    conv_kernel: int = 15
    dropout: float = 0.1
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dim", "layers", "stack", "max_positions", "feed_forward"):
            if getattr(self, name) < 1:
                raise ValueError(f"encoder.{name} must be at least 1, got {getattr(self, name)}")
        if self.input_context < 0:
            raise ValueError(f"encoder.input_context must be 0 or more frames, got {self.input_context}")
        object.__setattr__(self, "context", _pairs(self.context, "encoder.context", "left and right"))
        if self.context and len(self.context) != self.layers:
            raise ValueError(
                f"encoder.context must have a pair for each of the {self.layers} layers, got {len(self.context)} pairs"
            )
        object.__setattr__(self, "rights", tuple(self.rights))
        if self.rights and self.context:
            raise ValueError("encoder.rights goes with encoder.right, not with encoder.context")
        for right in self.rights:
            if exceeds(right, self.right) or (right is not None and right < 0):
                raise ValueError(f"encoder.rights must lie in 0..{self.right}, encoder.right, got {list(self.rights)}")
        if self.conv_kernel < 0 or (self.conv_kernel and self.conv_kernel % 2 == 0):
            raise ValueError(f"encoder.conv_kernel must be odd, or 0 for none, got {self.conv_kernel}")
        _check_choice("encoder.position", self.position, POSITIONS + INPUT_POSITIONS)
        _check_choice("encoder.activation", self.activation, ACTIVATIONS)
        _check_dropout("encoder", self.dropout)

    @classmethod
    def preset(cls, name: str) -> EncoderConfig:
        """A configuration of a usual size; change it with `dataclasses.replace`.

        | name    | dim | layers | heads | feed_forward | parameters with 39 inputs |
        |---------|-----|--------|-------|--------------|---------------------------|
        | `tiny`  |  48 |      3 |     4 |          144 |                   96,912 |
        | `small` |  96 |      4 |     4 |          288 |                  496,704 |
        | `base`  | 160 |      5 |     4 |          480 |                1,698,720 |
        | `large` | 256 |      7 |     8 |          768 |                6,037,248 |

        Raises:
            ValueError: When there is no preset of that name.
        """
        _check_choice("an encoder preset", name, tuple(ENCODER_PRESETS))
        return ENCODER_PRESETS[name]

    @property
    def layer_contexts(self) -> tuple[tuple[int | None, int | None], ...]:
        """(left, right) of each layer's attention."""
        return self.context or ((self.left, self.right),) * self.layers


ENCODER_PRESETS = {
    "tiny": EncoderConfig(dim=48, layers=3, heads=4, feed_forward=144),
    "small": EncoderConfig(dim=96, layers=4, heads=4, feed_forward=288),
    "base": EncoderConfig(dim=160, layers=5, heads=4, feed_forward=480),
    "large": EncoderConfig(dim=256, layers=7, heads=8, feed_forward=768),
}


@dataclass(frozen=True)
class MlpConfig:
    """Shape of an `Mlp`.

    Args:
        width: Units of each hidden layer.
        layers: Hidden layers.
        dropout: Share of units dropped in training, [0, 1).
        left: Left context of the input window, in frames.
        right: Right context of the input window, in frames.

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 512
    layers: int = 3
    dropout: float = 0.2
    left: int = 0
    right: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"mlp.width and mlp.layers must be at least 1, got {self.width} and {self.layers}")
        if self.left < 0 or self.right < 0:
            raise ValueError(f"mlp.left and mlp.right must be 0 or more frames, got {self.left} and {self.right}")
        _check_dropout("mlp", self.dropout)


@dataclass(frozen=True)
class TdnnConfig:
    """Shape of a `Tdnn`.

    Args:
        width: Units of each layer.
        layers: (kernel, dilation) per layer, first layer first; the kernel is an odd number of frames. A layer reaches
            kernel // 2 * dilation frames to either side.
        dropout: Share of units dropped in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 256
    layers: tuple[tuple[int, int], ...] = ((5, 1), (3, 1), (3, 2), (3, 4), (3, 8), (1, 1))
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"tdnn.width must be at least 1, got {self.width}")
        object.__setattr__(self, "layers", _pairs(self.layers, "tdnn.layers", "kernel and dilation"))
        if not self.layers:
            raise ValueError("tdnn.layers must have a pair of kernel and dilation for at least one layer")
        for kernel, dilation in self.layers:
            if kernel < 1 or kernel % 2 == 0 or dilation < 1:
                raise ValueError(
                    f"tdnn.layers must have an odd kernel and a dilation of at least 1, got {[kernel, dilation]}"
                )
        _check_dropout("tdnn", self.dropout)


@dataclass(frozen=True)
class BlstmConfig:
    """Shape of a `Blstm`.

    Args:
        width: Units of each layer in each direction.
        layers: Number of layers.
        dropout: Share of units dropped between layers in training, [0, 1).

    Raises:
        ValueError: When a field is out of its range.
    """

    width: int = 256
    layers: int = 2
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ValueError(f"blstm.width and blstm.layers must be at least 1, got {self.width} and {self.layers}")
        _check_dropout("blstm", self.dropout)


@dataclass(frozen=True)
class ClassifierConfig:
    """Shape of a `FrameClassifier`, and the names of its classes.

    Args:
        phones: Name of the phone set, or a file with one phone per line, see `PhoneSet.load`; not used with pooling.
        symbols: The phones, index = class; empty: those of the named set. With pooling: the labels.
        kind: The body: `encoder` (truncated self-attention) or a baseline: `blstm`, `tdnn`, `mlp` (one frame or a
            window of frames), `linear` (one frame).
        frontend: The features; null for a model that takes ready features instead of waveforms.
        feature_dim: Features per frame of ready features; not used with a front end.
        encoder: Shape of an `encoder` body.
        blstm: Shape of a `blstm` body.
        tdnn: Shape of a `tdnn` body.
        mlp: Shape of an `mlp` body.
        pooling: `none`: one phone per frame; `mean` or `attention` over the frames: one label per utterance.
        temperature: Divisor of the logits before the softmax; training sets it on dev at its end, see `calibration`.

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
        _check_choice("model.kind", self.kind, KINDS)
        _check_choice("model.pooling", self.pooling, POOLINGS)
        if self.pooling != "none" and not self.symbols:
            raise ValueError(f"model.pooling {self.pooling!r} needs the labels of utterances in model.symbols")
        if self.feature_dim < 1:
            raise ValueError(f"model.feature_dim must be at least 1, got {self.feature_dim}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"model.temperature must be positive and finite, got {self.temperature}")
        if self.frontend is not None and self.frontend.normalisation == "speaker":
            raise ValueError("model.frontend.normalisation must not be 'speaker': a model does not know its speakers")
        if self.frontend is not None and self.frontend.kind == "spectrogram":
            raise ValueError("model.frontend.kind must be mfcc or fbank: a spectrogram has no log-mel energies")
        if not self.symbols and (phones := PhoneSet.load(self.phones)).name == "custom":
            # Keep a file's phones, not its path.
            object.__setattr__(self, "phones", phones.name)
            object.__setattr__(self, "symbols", phones.symbols)
        object.__setattr__(self, "symbols", tuple(self.symbols))  # JSON gives a list

    @property
    def geometry(self) -> Geometry:
        """Frame geometry of the front end; the default geometry for ready features."""
        return Geometry() if self.frontend is None else self.frontend.geometry

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClassifierConfig:
        """The inverse of `dataclasses.asdict`, from JSON. Keys that only older versions had are ignored.

        Raises:
            TypeError: When a key is unknown.
            ValueError: When a field is out of its range, or the phone set is unknown.
        """
        if not isinstance(values, dict):
            raise TypeError(f"settings by name are needed, got {values!r}")
        if isinstance(encoder := values.get("encoder"), dict):  # older files have layer_drop, which only training used
            values = {**values, "encoder": {key: value for key, value in encoder.items() if key != "layer_drop"}}
        parts: dict[str, type] = {
            "frontend": FrontendConfig,
            "encoder": EncoderConfig,
            "blstm": BlstmConfig,
            "tdnn": TdnnConfig,
            "mlp": MlpConfig,
        }
        # Never a path: a model may be somebody else's.
        if not values.get("symbols") and (name := values.get("phones", "arpabet41")) not in PHONE_SETS:
            raise ValueError(f"unknown phone set {name!r}; a model with other phones has them in `symbols`")
        built = {key: part(**values[key]) for key, part in parts.items() if values.get(key) is not None}
        return cls(**{**values, **built})
