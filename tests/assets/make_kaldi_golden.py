"""Make kaldi_mfcc.npz, the features that Kaldi's own code gives for a short synthetic utterance.

    python tests/assets/make_kaldi_golden.py

The speech is eSpeak NG's, made here, so the project may give it away; the features are kaldi-native-fbank's. The
file holds the samples too, so the test that reads it needs neither.
"""

from importlib.metadata import version
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import torch
import torchaudio

from speechattn.alignment.espeak_process import ESPEAK_RATE, Request, synthesise

NUM_SAMPLES = 9700  # 0.6 s, and not a whole number of hops


def spoken_samples() -> np.ndarray:
    """The utterance, (NUM_SAMPLES,) int16 at 16 kHz."""
    (speech,) = synthesise("en-us", [Request("She sees five blue boats", rate=300, pitch=50)])
    samples = torchaudio.functional.resample(torch.tensor(speech.samples, dtype=torch.float32), ESPEAK_RATE, 16000)
    # A little noise, because in eSpeak's digital silence the features would be those of rounding errors.
    noise = 5 * np.random.default_rng(0).standard_normal(NUM_SAMPLES)
    return np.round(samples[3000 : 3000 + NUM_SAMPLES].numpy() + noise).clip(-32768, 32767).astype(np.int16)


def frames_of(extractor: kaldi_native_fbank.OnlineMfcc | kaldi_native_fbank.OnlineFbank) -> np.ndarray:
    """All features of the utterance, (T, D) float32."""
    extractor.accept_waveform(16000, spoken_samples().astype(np.float32))
    extractor.input_finished()
    return np.stack([extractor.get_frame(t) for t in range(extractor.num_frames_ready)])


def mfcc(*, snip_edges: bool, use_energy: bool) -> np.ndarray:
    """Kaldi's compute-mfcc-feats, (T, 13); other options at their defaults, without dither."""
    options = kaldi_native_fbank.MfccOptions(use_energy=use_energy)
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = snip_edges
    return frames_of(kaldi_native_fbank.OnlineMfcc(options))


def fbank() -> np.ndarray:
    """Kaldi's compute-fbank-feats, (T, 23)."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    return frames_of(kaldi_native_fbank.OnlineFbank(options))


if __name__ == "__main__":
    np.savez_compressed(
        Path(__file__).with_name("kaldi_mfcc.npz"),
        samples=spoken_samples(),
        mfcc=mfcc(snip_edges=True, use_energy=False),
        mfcc_centred=mfcc(snip_edges=False, use_energy=False),
        mfcc_energy=mfcc(snip_edges=True, use_energy=True),
        fbank=fbank(),
        versions=np.array([f"{name} {version(name)}" for name in ("kaldi-native-fbank", "espeakng-loader")]),
    )
