"""From waveforms to features: frames, spectrum, log-mel energies, cepstra, deltas, normalisation, streams."""

from speechattn.frontend.config import FrontendConfig
from speechattn.frontend.features import Fbank, Frontend, LogMelTransform, Mfcc, Spectrogram, make_frontend
from speechattn.frontend.masks import frame_mask
from speechattn.frontend.normalisation import FeatureStatistics
from speechattn.frontend.ready import ReadyFeatures
from speechattn.frontend.stream import FeatureStream
from speechattn.geometry import num_frames

__all__ = [
    "Fbank",
    "FeatureStatistics",
    "FeatureStream",
    "Frontend",
    "FrontendConfig",
    "LogMelTransform",
    "Mfcc",
    "ReadyFeatures",
    "Spectrogram",
    "frame_mask",
    "make_frontend",
    "num_frames",
]
