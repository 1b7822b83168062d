"""The options of a training, as a YAML file or the command line gives them."""

from __future__ import annotations

from dataclasses import dataclass, field

from speechattn.batches.spec_augment import SpecAugmentConfig
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.model.config import ClassifierConfig

__all__ = ["DataConfig", "OptimConfig", "TrainConfig"]


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Args:
        train: Cuts to learn from: a file, or shards, by their folder, list or address.
        dev: Cuts to choose the best epoch by, likewise.
        batch_seconds: Most seconds in a batch, padding included; an utterance that is longer is a batch of its own.
        max_seconds: Longer utterances are cut for training, see `chunks`; pauses of `wave_augment` come on top. Null
            leaves them whole, as those of models with pooling, whose label is the utterance's, and of ready features
            always are.
        num_workers: Data-loading processes.

    Raises:
        ValueError: When a field is out of its range.
    """

    train: str = "data/train.jsonl.gz"
    dev: str = "data/dev.jsonl.gz"
    batch_seconds: float = 100.0
    max_seconds: float | None = 30.0
    num_workers: int = 1

    def __post_init__(self) -> None:
        if self.batch_seconds <= 0:
            raise ValueError(f"data.batch_seconds must be positive, got {self.batch_seconds}")
        if self.max_seconds is not None and self.max_seconds < 1:
            raise ValueError(f"data.max_seconds must be at least 1, got {self.max_seconds}")


@dataclass(frozen=True)
class OptimConfig:
    """How to learn.

    Args:
        epochs: Passes over the training cuts.
        optimizer: `adamw`; or `muon` (Jordan et al. 2024), which makes the steps of the body's weight matrices
            orthogonal, with AdamW for all other parameters: its step takes longer and teaches more.
        learning_rate: Peak of the schedule.
        warmup: Share of the training in which the learning rate rises from 0; then it falls as a cosine.
        weight_decay: Decoupled, on matrices only.
        clip: Greatest norm of the gradient.
        accumulate: Batches of each process whose gradients make one step: as one batch so many times as large, in no
            more memory.
        label_smoothing: Share of the target spread over all classes, [0, 1).
        context_weight: Weight of the loss of a second task, to tell the phones before and after, see `context_task`; 0
            for none. Not with pooling.
        average: Decay per step of the exponential moving average of the weights, which is what is scored
            and kept; 0 for none.
        mixed_precision: `no`, `bf16`, `fp16`, or `auto`: bf16 where the hardware computes in it, no elsewhere. Front
            end and loss stay in float32.
        save_minutes: How often the state of the training is saved, for it to go on from; 0: after every step.

    Raises:
        ValueError: When a field is out of its range.
    """

    epochs: int = 20
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    label_smoothing: float = 0.0
    context_weight: float = 0.0
    average: float = 0.99
    mixed_precision: str = "no"
    save_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must be at least 1, got {getattr(self, name)}")
        if self.clip <= 0:
            raise ValueError(f"optim.clip must be positive, got {self.clip}")
        for name in ("learning_rate", "weight_decay", "context_weight", "save_minutes"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name} must not be negative, got {getattr(self, name)}")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optim.optimizer must be adamw or muon, got {self.optimizer!r}")
        if self.mixed_precision not in ("no", "bf16", "fp16", "auto"):
            raise ValueError(f"optim.mixed_precision must be no, bf16, fp16 or auto, got {self.mixed_precision!r}")
        for name in ("warmup", "label_smoothing", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optim.{name} must lie in [0, 1), got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainConfig:
    """A whole training.

    Args:
        output: Folder for the model: config.json, model.safetensors and the log.
        seed: Of the initial weights, the order of the data and the augmentation.
        data: What to train on.
        model: What to train.
        wave_augment: What to make of each training utterance's waveform.
        spec_augment: What to hide of each training utterance's log-mel energies.
        optim: How to learn.

    Raises:
        ValueError: When parts do not fit each other.
    """

    output: str = "exp/model"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    wave_augment: WaveAugmentConfig = field(default_factory=WaveAugmentConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        if self.optim.context_weight and self.model.pooling != "none":
            raise ValueError("optim.context_weight needs a phone for every frame: with model.pooling there is none")
        if self.wave_augment.adds_silence and self.model.pooling != "none":
            raise ValueError(
                "wave_augment.pause_share and noise_share need a phone for every frame: model.pooling has none"
            )
