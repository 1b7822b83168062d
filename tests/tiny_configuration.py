"""A configuration that trains in seconds."""

from pathlib import Path
from typing import Any

import yaml


def write_tiny(
    path: Path, *, epochs: int = 1, learning_rate: float = 5e-3, batch_seconds: float = 10, **model: Any
) -> Path:
    """Write the configuration as YAML; `model` overrides options in its section `model`."""
    encoder = {"dim": 16, "layers": 1, "heads": 2, "left": 4, "right": 4, "feed_forward": 16, "conv_kernel": 3}
    sections = {
        "data": {"batch_seconds": batch_seconds, "num_workers": 0},
        "model": {"frontend": {"normalisation": "utterance"}, "encoder": encoder, **model},
        "optim": {"epochs": epochs, "learning_rate": learning_rate, "average": 0},
    }
    path.write_text(yaml.safe_dump(sections))
    return path
