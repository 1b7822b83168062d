"""The options of `speechattn train`, from a YAML file or the command line."""

from dataclasses import dataclass, field

from speechattn.batches.spec_augment import SpecAugmentConfig
from speechattn.batches.wave_augment import WaveAugmentConfig
from speechattn.model.config import ClassifierConfig

__all__ = ["DataConfig", "OptimConfig", "TrainConfig"]


@dataclass(frozen=True)
class DataConfig:
    """Training data.

    Args:
        train: Cuts to train on: a file; or shards, by their folder, list or address.
        dev: Cuts to select the best epoch on, likewise.
        batch_seconds: Maximum padded duration of a batch (s): longest utterance times batch size. A longer utterance is
            a batch of its own.
        max_seconds: Longest training utterance (s), at least 1; longer ones are cut into chunks. Pauses from
            `wave_augment` are not counted. Null for no limit, as always with pooling or ready features.
        num_workers: Data-loading processes; 0 to load in the training process.

    Raises:
        ValueError: If a field is out of range.
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
    """Optimisation.

    Args:
        epochs: Passes over the training cuts.
        optimizer: `adamw`, or `muon` (Jordan et al. 2024) for the weight matrices of the model's body and AdamW for all
            other parameters. A Muon step takes longer but improves the model more.
        learning_rate: Peak learning rate.
        warmup: Fraction of the run in which the learning rate rises linearly from 0, [0, 1); then cosine decay to 0.
        weight_decay: Decoupled weight decay, for matrices only.
        clip: Maximum gradient norm.
        accumulate: Batches per process and optimiser step, for larger effective batches in the same memory.
        label_smoothing: Label smoothing, [0, 1).
        context_weight: Weight of an auxiliary loss for the previous and the next phone of each frame, see
            `auxiliary_loss`; 0 for none. Not with pooling.
        average: Decay per step of the moving average of the weights, [0, 1); 0 for none. The averaged model is the one
            that is scored and kept.
        mixed_precision: `no`, `bf16`, `fp16`, or `auto`: `bf16` if the hardware supports it, else `no`. Front end and
            loss are always float32.
        save_minutes: Minutes between checkpoints; 0 saves after every step.

    Raises:
        ValueError: If a field is out of range.
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
    """A training run.

    Args:
        output: Folder for the model (config.json, model.safetensors) and the log.
        seed: Seed for initial weights, data order, dropout and augmentation.
        data: Training data.
        model: The model.
        wave_augment: Augmentation of the training waveforms.
        spec_augment: Augmentation of the log-mel energies.
        optim: Optimisation.

    Raises:
        ValueError: If options do not fit each other.
    """

    output: str = "exp/model"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    model: ClassifierConfig = field(default_factory=ClassifierConfig)
    wave_augment: WaveAugmentConfig = field(default_factory=WaveAugmentConfig)
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        if self.model.pooling != "none":
            if self.optim.context_weight:
                raise ValueError("optim.context_weight needs a phone for every frame: not with model.pooling")
            if self.wave_augment.adds_silence:
                raise ValueError(
                    "wave_augment.pause_share and noise_share need a phone for every frame: not with model.pooling"
                )
