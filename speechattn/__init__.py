"""Speech frame classification with truncated self-attention.

Names load on first use: `import speechattn` loads nothing heavy, `speechattn.frontend` only torch and torchaudio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from speechattn.jobs.stamps import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:
    from speechattn.attention import TruncatedSelfAttention as TruncatedSelfAttention
    from speechattn.frontend import Fbank as Fbank
    from speechattn.frontend import Mfcc as Mfcc
    from speechattn.frontend import Spectrogram as Spectrogram
    from speechattn.geometry import num_frames as num_frames
    from speechattn.labels.frames import frame_labels as frame_labels
    from speechattn.labels.intervals import Interval as Interval
    from speechattn.labels.intervals import Segment as Segment
    from speechattn.model.classifier import FrameClassifier as FrameClassifier
    from speechattn.phones import PhoneSet as PhoneSet
    from speechattn.prediction.live import LiveSegments as LiveSegments

_MODULES = {
    "Fbank": "frontend",
    "FrameClassifier": "model.classifier",
    "Interval": "labels.intervals",
    "LiveSegments": "prediction.live",
    "Mfcc": "frontend",
    "PhoneSet": "phones",
    "Segment": "labels.intervals",
    "Spectrogram": "frontend",
    "TruncatedSelfAttention": "attention",
    "frame_labels": "labels.frames",
    "num_frames": "geometry",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'speechattn' has no attribute {name!r}")
    return getattr(import_module(f"speechattn.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
