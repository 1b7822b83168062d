"""From waveforms to features: frames, spectrum, log-mel energies, cepstra, deltas, normalisation, streams."""

from speechattn.frontend.config import FrontendConfig
from speechattn.frontend.features import Fbank, LogMelTransform, Mfcc, Spectrogram
from speechattn.frontend.masks import frame_mask
from speechattn.frontend.normalisation import FeatureStatistics
from speechattn.frontend.ready import ReadyFeatures
from speechattn.frontend.stream import FeatureStream
from speechattn.geometry import num_frames

__all__ = [
    "Fbank",
    "FeatureStatistics",
    "FeatureStream",
    "LogMelTransform",
    "Mfcc",
    "FrontendConfig",
    "ReadyFeatures",
    "Spectrogram",
    "frame_mask",
    "num_frames",
]
