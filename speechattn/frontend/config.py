"""What a front end computes: one field for each choice, and the presets that set them as other tools do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speechattn.geometry import Geometry

__all__ = ["DELTA_RULES", "FRONTEND_PRESETS", "FrontendConfig"]

FLOAT32_EPS = 2.0**-23
FLOAT64_EPS = 2.0**-52

_KALDI: dict[str, Any] = {
    "n_fft": 0,
    "scale": 32768.0,
    "snip_edges": True,
    "edge_padding": "mirror",
    "remove_dc": True,
    "preemphasis": 0.97,
    "preemphasis_over": "frame",
    "window_type": "povey",
    "power": 2,
    "periodogram": False,
    "num_mels": 23,
    "mel_filters": "mel",
    "low_freq": 20.0,
    "high_freq": 0.0,
    "decibels": False,
    "floor": FLOAT32_EPS,
    "top_db": 0.0,
    "lifter": 22.0,
    "htk_compat": False,
    "use_energy": False,
    "energy_from": "samples",
    "energy_floor": 0.0,
    "delta_rule": "kaldi",
    "normalisation": "none",
    "unbiased": False,
}
_LIBROSA: dict[str, Any] = {
    **_KALDI,
    "scale": 1.0,
    "snip_edges": False,
    "edge_padding": "zero",
    "remove_dc": False,
    "preemphasis": 0.0,
    "window_type": "hann",
    "num_mels": 128,
    "mel_filters": "slaney",
    "low_freq": 0.0,
    "decibels": True,
    "floor": 1e-10,
    "top_db": 80.0,
    "lifter": 0.0,
}
FRONTEND_PRESETS: dict[str, dict[str, Any]] = {
    "kaldi": _KALDI,
    "htk": {
        **_KALDI,
        "remove_dc": False,
        "window_type": "hamming",
        "power": 1,
        "num_mels": 26,
        "low_freq": 0.0,
        "floor": 1.0,
        "htk_compat": True,
        "delta_rule": "torchaudio",
    },
    "librosa": _LIBROSA,
    "torchaudio": {**_LIBROSA, "n_fft": -1, "edge_padding": "reflect", "mel_filters": "hertz"},
    "python_speech_features": {
        **_KALDI,
        "snip_edges": False,
        "edge_padding": "tail",
        "remove_dc": False,
        "preemphasis_over": "signal",
        "window_type": "rectangular",
        "periodogram": True,
        "num_mels": 26,
        "mel_filters": "bins",
        "low_freq": 0.0,
        "floor": FLOAT64_EPS,
        "use_energy": True,
        "energy_from": "spectrum",
    },
    "libriphone": {
        **_KALDI,
        "scale": 1.0,
        "delta_rule": "torchaudio",
        "normalisation": "utterance",
        "unbiased": True,
    },
}
DELTA_RULES = ("kaldi", "torchaudio")
CHOICES = {
    "preset": tuple(FRONTEND_PRESETS),
    "edge_padding": ("mirror", "zero", "reflect", "tail"),
    "preemphasis_over": ("frame", "signal"),
    "window_type": ("povey", "hamming", "hann", "rectangular"),
    "power": (1, 2),
    "mel_filters": ("mel", "hertz", "slaney", "bins"),
    "energy_from": ("samples", "spectrum"),
    "delta_order": (0, 1, 2),
    "delta_rule": DELTA_RULES,
    "normalisation": ("none", "utterance", "sliding", "online", "speaker", "global"),
}
AS_PRESET: Any = None  # a field left at this takes its preset's value


@dataclass(frozen=True)
class FrontendConfig:
    """What a front end computes. Fields that say "preset" take the preset's value unless they are given.

    Args:
        preset: Whose recipe to follow: `kaldi`, `htk`, `librosa`, `torchaudio`, `python_speech_features` or
            `libriphone`.
        sample_rate: Samples per second of the input.
        window_ms: Length of a frame, milliseconds.
        hop_ms: Time from one frame to the next, milliseconds.
        n_fft: Length of the Fourier transform, samples; 0: the window rounded up to a power of two,
            -1: the window itself. Preset.
        scale: What samples in [-1, 1] are multiplied by first: 32768 for tools that work on integers. Preset.
        snip_edges: Only frames that lie inside the signal; else `edge_padding` says how it goes on. Preset.
        edge_padding: Beyond the edges, unless they are snipped: `mirror` (Kaldi: frame t is centred at (t + 1/2)
            hops, the edge sample repeated), `zero` or `reflect` (frame t is centred at t hops; zeros, or the
            signal mirrored about its edge sample), `tail` (as snipped, with zeros for a last partial frame). Preset.
        remove_dc: Subtract each frame's mean. Preset.
        preemphasis: Coefficient of the first difference, [0, 1]. Preset.
        preemphasis_over: `frame`: a frame's first sample precedes itself; `signal`: done before framing. Preset.
        window_type: `povey`, `hamming`, `hann` (periodic) or `rectangular`. Preset.
        power: 2 for the power spectrum, 1 for magnitudes. Preset.
        periodogram: Divide the power spectrum by `n_fft`. Preset.
        num_mels: Mel filters. Preset.
        mel_filters: Triangles straight on the mel scale (`mel`: Kaldi, HTK), straight in Hz (`hertz`:
            torchaudio), on Slaney's scale with equal areas (`slaney`: librosa), or between whole bins (`bins`:
            python_speech_features). Preset.
        low_freq: Lower edge of the lowest filter, Hz. Preset.
        high_freq: Upper edge of the highest filter, Hz; 0 means the Nyquist frequency, a negative value
            counts down from it. Preset.
        decibels: 10 log10 instead of the natural logarithm. Preset.
        floor: Least energy that the logarithm sees. Preset.
        top_db: Raise what lies further than this below an utterance's loudest cell; 0 for never. Preset.
        num_ceps: Cepstral coefficients kept, at most `num_mels`.
        lifter: Cepstral lifter Q; 0 for none. Preset.
        htk_compat: c0 (or the energy) comes last, and c0 is sqrt(2) times as large. Preset.
        use_energy: The frame's log-energy in the place of c0. Preset.
        energy_from: `samples`: before pre-emphasis and window, as Kaldi's raw energy; `spectrum`: its sum. Preset.
        energy_floor: Least energy; Kaldi's default 0 leaves `floor`, torchaudio's is 1. Preset.
        delta_order: 0 static only, 1 with deltas, 2 with delta-deltas.
        delta_window: Frames to each side in the delta regression.
        delta_rule: `kaldi`: each order is one filter over the static features; `torchaudio`: each order
            filters the one before. They differ at an utterance's edges. Preset.
        normalisation: `none`; zero mean and unit variance over the utterance (`utterance`), over frames around
            (`sliding`, Kaldi's rule), over frames before, helped out at first by statistics kept in the module
            (`online`, Kaldi's rule), by statistics passed in (`speaker`) or kept in the module (`global`). Preset.
        normalise_variance: False: the mean only.
        unbiased: Divide the variance of `utterance` normalisation by the frames less one. Preset.
        cmn_window: Frames that `sliding` and `online` normalisation average.
        min_cmn_window: Frames it averages at least, at the start of an utterance.
        center_cmn: Its window lies around the frame, not before it.
        global_frames: Frames that the statistics kept in the module count as in `online` normalisation, at most.

    Raises:
        ValueError: When a field is out of its range.
    """

    preset: str = "kaldi"
    sample_rate: int = 16000
    window_ms: float = 25.0
    hop_ms: float = 10.0
    n_fft: int = AS_PRESET
    scale: float = AS_PRESET
    snip_edges: bool = AS_PRESET
    edge_padding: str = AS_PRESET
    remove_dc: bool = AS_PRESET
    preemphasis: float = AS_PRESET
    preemphasis_over: str = AS_PRESET
    window_type: str = AS_PRESET
    power: int = AS_PRESET
    periodogram: bool = AS_PRESET
    num_mels: int = AS_PRESET
    mel_filters: str = AS_PRESET
    low_freq: float = AS_PRESET
    high_freq: float = AS_PRESET
    decibels: bool = AS_PRESET
    floor: float = AS_PRESET
    top_db: float = AS_PRESET
    num_ceps: int = 13
    lifter: float = AS_PRESET
    htk_compat: bool = AS_PRESET
    use_energy: bool = AS_PRESET
    energy_from: str = AS_PRESET
    energy_floor: float = AS_PRESET
    delta_order: int = 2
    delta_window: int = 2
    delta_rule: str = AS_PRESET
    normalisation: str = AS_PRESET
    normalise_variance: bool = True
    unbiased: bool = AS_PRESET
    cmn_window: int = 600
    min_cmn_window: int = 100
    center_cmn: bool = False
    global_frames: int = 200

    def __post_init__(self) -> None:
        for name, value in FRONTEND_PRESETS.get(self.preset, {}).items():
            if getattr(self, name) is AS_PRESET:
                object.__setattr__(self, name, value)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                listed = ", ".join(map(str, choices))
                raise ValueError(f"{name} must be one of {listed}, got {name}={getattr(self, name)!r}")
        if not 1 <= self.num_ceps <= self.num_mels:
            raise ValueError(f"num_ceps must lie in 1..num_mels={self.num_mels}, got num_ceps={self.num_ceps}")
        for name in ("sample_rate", "window_ms", "hop_ms", "scale", "floor", "delta_window", "cmn_window"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {name}={getattr(self, name)}")
        for name in ("preemphasis", "top_db", "lifter", "energy_floor", "min_cmn_window", "global_frames"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {name}={getattr(self, name)}")
        if self.periodogram and self.power != 2:
            raise ValueError(f"periodogram=True needs power=2, got power={self.power}")
        if self.window < 2 or self.hop < 1:
            raise ValueError(
                f"a frame needs 2 samples and a hop 1, got window_ms={self.window_ms:g} and hop_ms={self.hop_ms:g} "
                f"at {self.sample_rate} Hz"
            )
        if self.top_db and not self.decibels:
            raise ValueError(f"top_db needs decibels=True, got top_db={self.top_db:g} of natural logarithms")
        if not 0 <= self.low_freq < self.highest_freq <= self.sample_rate / 2:
            raise ValueError(
                f"need 0 <= low_freq < high_freq <= {self.sample_rate / 2:g} Hz, got "
                f"low_freq={self.low_freq:g} and high_freq={self.high_freq:g}"
            )
        if not self.snip_edges and self.edge_padding == "mirror" and self.hop > self.window:
            raise ValueError(
                f"edge_padding='mirror' needs hop_ms <= window_ms, got hop_ms={self.hop_ms:g} and "
                f"window_ms={self.window_ms:g}"
            )
        if self.fft_length < self.window:
            raise ValueError(f"n_fft must be at least the window, {self.geometry.window}, got n_fft={self.n_fft}")
        if self.mel_filters == "mel" and self.fft_length % 2:
            raise ValueError(f"mel_filters='mel' needs an even n_fft, got {self.fft_length} samples")

    @property
    def streams(self) -> bool:
        """Whether a frame can be final before the utterance ends."""
        return not self.top_db and self.normalisation != "utterance"

    @property
    def learns_statistics(self) -> bool:
        """Whether the module keeps mean and variance of the training data."""
        return self.normalisation in ("online", "global")

    @property
    def window(self) -> int:
        """Samples in a frame."""
        return self._samples(self.window_ms)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self._samples(self.hop_ms)

    @property
    def fft_length(self) -> int:
        """Samples in the Fourier transform, zeros included."""
        if self.n_fft > 0:
            return self.n_fft
        return self.window if self.n_fft else 1 << (self.window - 1).bit_length()

    @property
    def geometry(self) -> Geometry:
        """Where the frames lie."""
        window, hop = self.window, self.hop
        if self.snip_edges:
            left = right = 0
        elif self.edge_padding == "mirror":
            left = window // 2 - hop // 2
            right = window - hop + hop // 2 - left
        elif self.edge_padding == "tail":
            left, right = 0, hop - 1
        else:  # the window in the middle of the transform, the transform around t * hop
            left = self.fft_length // 2 - (self.fft_length - window) // 2
            right = window - left - self.fft_length % 2  # they pad n_fft // 2 to either side
        return Geometry(self.sample_rate, window, hop, left, right)

    @property
    def delta_reach(self) -> int:
        """Frames to each side that deltas look at."""
        return self.delta_order * self.delta_window

    @property
    def highest_freq(self) -> float:
        """Upper edge of the highest filter, Hz."""
        return self.high_freq if self.high_freq > 0 else self.sample_rate / 2 + self.high_freq

    def _samples(self, milliseconds: float) -> int:
        """Whole samples of a time, rounded as the preset's tool does: Kaldi cuts, others do not say."""
        samples = self.sample_rate * milliseconds / 1000
        return int(samples + 0.5) if self.preset == "python_speech_features" else int(samples + 1e-6)
