"""Signals for the tests of the front end."""

import numpy as np

__all__ = ["ODD_SIGNALS", "SIGNALS", "vowels"]


def vowels(num_samples: int, seed: int = 0) -> np.ndarray:
    """Something like speech: a gliding pulse train, coloured, louder and softer, with noise; float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(7 * time + seed)) / 16000
    voice = sum(np.cos(k * phase) / (1 + ((k * 120 - 700) / 400) ** 2) for k in range(1, 30))
    signal = 0.05 * voice * (1.1 + np.sin(9 * time)) + 0.01 * rng.standard_normal(num_samples)
    return np.asarray(signal, dtype=np.float32)


SIGNALS = {
    "vowels": vowels(16000),
    "noise": np.random.default_rng(1).normal(0, 0.1, 8000).astype(np.float32),
    "clipped": np.clip(40 * vowels(8000, 2), -1, 1),
    "offset": vowels(8000, 3) + np.float32(0.3),
    "faint": 1e-3 * vowels(8000, 4),
    "silence": np.zeros(2000, dtype=np.float32),
    "silence, then vowels": np.concatenate([np.zeros(3000, dtype=np.float32), vowels(3000, 6)]),
}

ODD_SIGNALS = {
    "zeros": np.zeros(2000, dtype=np.float32),
    "constant": np.full(2000, 0.5, dtype=np.float32),
    "one frame": np.ones(400, dtype=np.float32),
    "1e-8": 1e-8 * np.sin(np.arange(2000, dtype=np.float32)),
    "clipping": np.sign(np.sin(np.arange(2000, dtype=np.float32))),
    "click": np.eye(1, 2000, 999, dtype=np.float32)[0],
}
