"""What a front end computes: one field per choice, and presets that follow other tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speechattn.geometry import Geometry

__all__ = ["DELTA_RULES", "FRONTEND_PRESETS", "FrontendConfig"]

FLOAT32_EPS = 2.0**-23
FLOAT64_EPS = 2.0**-52

_KALDI: dict[str, Any] = (
    {"n_fft": 0, "scale": 32768.0, "snip_edges": True, "edge_padding": "mirror"}
    | {"remove_dc": True, "preemphasis": 0.97, "preemphasis_over": "frame", "window_type": "povey"}
    | {"power": 2, "periodogram": False, "num_mels": 23, "mel_filters": "mel", "low_freq": 20.0, "high_freq": 0.0}
    | {"decibels": False, "floor": FLOAT32_EPS, "top_db": 0.0, "lifter": 22.0, "htk_compat": False}
    | {"use_energy": False, "energy_from": "samples", "energy_floor": 0.0}
    | {"delta_rule": "kaldi", "normalisation": "none", "unbiased": False}
)
_HTK = (
    _KALDI
    | {"remove_dc": False, "window_type": "hamming", "power": 1, "num_mels": 26, "low_freq": 0.0, "floor": 1.0}
    | {"htk_compat": True, "delta_rule": "torchaudio"}
)
_LIBROSA = (
    _KALDI
    | {"scale": 1.0, "snip_edges": False, "edge_padding": "zero"}
    | {"remove_dc": False, "preemphasis": 0.0, "window_type": "hann"}
    | {"num_mels": 128, "mel_filters": "slaney", "low_freq": 0.0}
    | {"decibels": True, "floor": 1e-10, "top_db": 80.0, "lifter": 0.0}
)
_PYTHON_SPEECH_FEATURES = (
    _KALDI
    | {"snip_edges": False, "edge_padding": "tail", "remove_dc": False}
    | {"preemphasis_over": "signal", "window_type": "rectangular", "periodogram": True}
    | {"num_mels": 26, "mel_filters": "bins", "low_freq": 0.0, "floor": FLOAT64_EPS}
    | {"use_energy": True, "energy_from": "spectrum"}
)
FRONTEND_PRESETS: dict[str, dict[str, Any]] = {
    "kaldi": _KALDI,
    "htk": _HTK,
    "librosa": _LIBROSA,
    "torchaudio": _LIBROSA | {"n_fft": -1, "edge_padding": "reflect", "mel_filters": "hertz"},
    "python_speech_features": _PYTHON_SPEECH_FEATURES,
    "libriphone": _KALDI | {"scale": 1.0, "delta_rule": "torchaudio", "normalisation": "utterance", "unbiased": True},
}
DELTA_RULES = ("kaldi", "torchaudio")
CHOICES = {
    "preset": tuple(FRONTEND_PRESETS),
    "kind": ("mfcc", "fbank", "spectrogram"),
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
PRESET: Any = None  # default of a field whose value the preset decides


@dataclass(frozen=True)
class FrontendConfig:
    """What a front end computes.

    A field that is None takes its value from the preset (`delta_order`: from `kind`). `resolved` fills these in, so
    `dataclasses.replace(config, preset=...)` changes all of them.

    Args:
        preset: Tool to follow: `kaldi`, `htk`, `librosa`, `torchaudio`, `python_speech_features` or `libriphone`.
        kind: `mfcc` (cepstra), `fbank` (log-mel energies) or `spectrogram`. Models take the first two.
        sample_rate: Samples per second of the input.
        window_ms: Frame length, milliseconds.
        hop_ms: Time between frames, milliseconds.
        n_fft: FFT length, samples; 0: the window rounded up to a power of two, -1: the window itself.
        scale: Factor applied to samples in [-1, 1]: 32768 for tools that work on integers.
        snip_edges: Use only frames that lie inside the signal; otherwise extend it as `edge_padding` says.
        edge_padding: Beyond the edges, `mirror` repeats the edge sample and centres frame t at (t + 1/2) hops (Kaldi);
            `zero` pads with zeros, `reflect` mirrors about the edge sample, and both centre frame t at t hops;
            `tail` places frames as if snipped and pads the last one with zeros.
        remove_dc: Subtract each frame's mean.
        preemphasis: Coefficient of the first difference, [0, 1].
        preemphasis_over: `frame`: within each frame, its first sample preceded by itself; `signal`: before framing.
        window_type: `povey`, `hamming`, `hann` (periodic) or `rectangular`.
        power: 2 for the power spectrum, 1 for magnitudes.
        periodogram: Divide the power spectrum by the FFT length.
        num_mels: Number of mel filters.
        mel_filters: Triangles straight in mel (`mel`: Kaldi, HTK), straight in Hz (`hertz`: torchaudio), of equal area
            on Slaney's scale (`slaney`: librosa), or between whole bins (`bins`: python_speech_features).
        low_freq: Lower edge of the lowest filter, Hz.
        high_freq: Upper edge of the highest filter, Hz; 0 or less counts from the Nyquist frequency.
        decibels: Use 10 log10 instead of the natural logarithm.
        floor: Minimum energy before the logarithm.
        top_db: Dynamic range below an utterance's loudest cell, dB; 0: unlimited.
        num_ceps: Number of cepstral coefficients kept, at most `num_mels`.
        lifter: Cepstral lifter Q; 0: none.
        htk_compat: Put c0 (or the energy) last, with c0 sqrt(2) times as large.
        use_energy: Replace c0 by the frame's log-energy.
        energy_from: `samples`: before pre-emphasis and window (Kaldi's raw energy); `spectrum`: the sum of its bins.
        energy_floor: Minimum frame energy, in addition to `floor`; 0 in Kaldi, 1 in torchaudio.
        delta_order: 0: static features only, 1: with deltas, 2: with delta-deltas. Default: 2 for `mfcc`, otherwise 0.
        delta_window: Frames on each side in the delta regression.
        delta_rule: `kaldi`: each order is one filter over the static features; `torchaudio`: each order filters the
            previous one. They differ at an utterance's edges.
        normalisation: Mean and variance normalisation: `none`, or with the statistics of the utterance (`utterance`),
            of the frames around (`sliding`, Kaldi), of the frames before, topped up with stored statistics (`online`,
            Kaldi), of the speaker (`speaker`, passed in) or of the training data (`global`, stored).
        normalise_variance: Normalise the variance too, not only the mean.
        unbiased: Divide the variance in `utterance` normalisation by the number of frames less one.
        cmn_window: Window of `sliding` and `online` normalisation, frames.
        min_cmn_window: Minimum window of `sliding` normalisation at the start of an utterance, frames.
        center_cmn: Centre the window of `sliding` normalisation on the frame; otherwise it ends there.
        global_frames: Maximum weight of the stored statistics in `online` normalisation, frames.
        cmn_min_range: `online` normalisation learns only from frames in whose last second the level (c0, the energy, or
            the mean of the channels) varied by at least this many standard deviations, so that it does not adapt to
            pauses and noise; 0: from all frames.

    Raises:
        ValueError: When a field is out of its range.
    """

    preset: str = "kaldi"
    kind: str = "mfcc"
    sample_rate: int = 16000
    window_ms: float = 25.0
    hop_ms: float = 10.0
    n_fft: int = PRESET
    scale: float = PRESET
    snip_edges: bool = PRESET
    edge_padding: str = PRESET
    remove_dc: bool = PRESET
    preemphasis: float = PRESET
    preemphasis_over: str = PRESET
    window_type: str = PRESET
    power: int = PRESET
    periodogram: bool = PRESET
    num_mels: int = PRESET
    mel_filters: str = PRESET
    low_freq: float = PRESET
    high_freq: float = PRESET
    decibels: bool = PRESET
    floor: float = PRESET
    top_db: float = PRESET
    num_ceps: int = 13
    lifter: float = PRESET
    htk_compat: bool = PRESET
    use_energy: bool = PRESET
    energy_from: str = PRESET
    energy_floor: float = PRESET
    delta_order: int = PRESET
    delta_window: int = 2
    delta_rule: str = PRESET
    normalisation: str = PRESET
    normalise_variance: bool = True
    unbiased: bool = PRESET
    cmn_window: int = 600
    min_cmn_window: int = 100
    center_cmn: bool = False
    global_frames: int = 200
    cmn_min_range: float = 0.0

    def __post_init__(self) -> None:
        if self.preset in FRONTEND_PRESETS and self.resolved is not self:
            return  # checked when that was made
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {name}={value!r}")
        for name in ("sample_rate", "window_ms", "hop_ms", "scale", "floor", "num_mels", "delta_window", "cmn_window"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {name}={getattr(self, name)}")
        for name in (
            "preemphasis",
            "top_db",
            "lifter",
            "energy_floor",
            "min_cmn_window",
            "global_frames",
            "cmn_min_range",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {name}={getattr(self, name)}")
        if self.kind == "mfcc" and not 1 <= self.num_ceps <= self.num_mels:
            raise ValueError(f"num_ceps must lie in 1..num_mels={self.num_mels}, got num_ceps={self.num_ceps}")
        if self.kind != "spectrogram" and self.resolved.mel_filters == "mel" and self.num_mels < 4:
            raise ValueError(f"num_mels must be at least 4, as in Kaldi, got num_mels={self.num_mels}")
        if self.periodogram and self.power != 2:
            raise ValueError(f"periodogram=True needs power=2, got power={self.power}")
        lengths = f"window_ms={self.window_ms:g} and hop_ms={self.hop_ms:g}"
        if self.window < 2 or self.hop < 1:
            raise ValueError(f"a frame needs 2 samples and a hop 1, got {lengths} at {self.sample_rate} Hz")
        if not self.snip_edges and self.edge_padding == "mirror" and self.hop > self.window:
            raise ValueError(f"edge_padding='mirror' needs hop_ms <= window_ms, got {lengths}")
        if self.top_db and not self.decibels:
            raise ValueError(f"top_db needs decibels=True, got top_db={self.top_db:g} with natural logarithms")
        if not 0 <= self.low_freq < self.highest_freq <= self.sample_rate / 2:
            raise ValueError(
                f"need 0 <= low_freq < high_freq <= {self.sample_rate / 2:g} Hz, got "
                f"low_freq={self.low_freq:g} and high_freq={self.high_freq:g}"
            )
        if self.fft_length < self.window:
            raise ValueError(f"n_fft must be at least the window, {self.window}, got n_fft={self.n_fft}")
        if self.mel_filters == "mel" and self.fft_length % 2:
            raise ValueError(f"mel_filters='mel' needs an even n_fft, got {self.fft_length} samples")

    @property
    def resolved(self) -> FrontendConfig:
        """The same configuration with the preset's value in every field that is None."""
        if None not in vars(self).values():
            return self
        fields = {name: value for name, value in vars(self).items() if value is not None}
        delta_order = 2 if self.kind == "mfcc" else 0
        return FrontendConfig(**({"delta_order": delta_order} | FRONTEND_PRESETS[self.preset] | fields))

    @property
    def streams(self) -> bool:
        """Whether a frame can be final before the utterance ends."""
        return not self.resolved.top_db and self.resolved.normalisation != "utterance"

    @property
    def learns_statistics(self) -> bool:
        """Whether the front end stores mean and variance of the training data."""
        return self.resolved.normalisation in ("online", "global")

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
        """Samples in the Fourier transform, zero padding included."""
        n_fft, window = self.resolved.n_fft, self.window
        if n_fft <= 0:
            return window if n_fft else 1 << (window - 1).bit_length()
        return n_fft

    @property
    def geometry(self) -> Geometry:
        """Where the frames lie."""
        config, window, hop = self.resolved, self.window, self.hop
        if config.snip_edges:
            left = right = 0
        elif config.edge_padding == "mirror":
            left = window // 2 - hop // 2
            right = window - hop + hop // 2 - left
        elif config.edge_padding == "tail":
            left, right = 0, hop - 1
        else:  # the window in the middle of the transform, the transform centred at t * hop
            left = self.fft_length // 2 - (self.fft_length - window) // 2
            right = window - left - self.fft_length % 2  # these tools pad n_fft // 2 samples on either side
        return Geometry(self.sample_rate, window, hop, left, right)

    @property
    def level_columns(self) -> slice:
        """The static features whose mean is the level of a frame: c0 or the energy, or all channels."""
        if self.kind != "mfcc":
            return slice(self.static_dim)
        return slice(self.num_ceps - 1, self.num_ceps) if self.resolved.htk_compat else slice(1)

    @property
    def static_dim(self) -> int:
        """Static features per frame."""
        if self.kind == "spectrogram":
            return self.fft_length // 2 + 1
        return self.num_ceps if self.kind == "mfcc" else self.resolved.num_mels

    @property
    def delta_reach(self) -> int:
        """Frames on each side that the deltas depend on."""
        return self.resolved.delta_order * self.delta_window

    @property
    def highest_freq(self) -> float:
        """Upper edge of the highest filter, Hz."""
        high_freq = self.resolved.high_freq
        return high_freq if high_freq > 0 else self.sample_rate / 2 + high_freq

    def _samples(self, milliseconds: float) -> int:
        """Whole samples in a time: python_speech_features rounds, the others truncate."""
        samples = self.sample_rate * milliseconds / 1000
        return int(samples + 0.5) if self.preset == "python_speech_features" else int(samples + 1e-6)
