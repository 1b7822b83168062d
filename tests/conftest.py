"""What all tests share: fixed seeds, one thread, and real speech where a mirror is at hand."""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import settings
from made_librispeech import MadeCorpus, make_mirror, make_utterances

from speechattn.audio import load_audio

if TYPE_CHECKING:
    from speechattn.training.config import TrainConfig

# The same examples in every run, no time limit for one (machines are shared), nothing written to disk.
settings.register_profile("speechattn", derandomize=True, deadline=None, database=None, max_examples=25)
settings.load_profile("speechattn")

# Shells start what goes on in the background with Ctrl-C ignored, and every process started from there inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

UTTERANCES = ("dr2-faem0/sx42", "dr7-madd0/si1295", "dr8-fbcg1/si1612")  # three speakers


@pytest.fixture(autouse=True)
def _seeds_and_one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        yield
    np.random.set_state(numpy_state)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder that holds real data, or the test is skipped."""
    folder = os.environ.get("SPEECHATTN_MIRROR")
    if not folder:
        pytest.skip("SPEECHATTN_MIRROR is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def timit_archive(mirror: Path) -> Path:
    """The archive of the TIMIT sample."""
    archive = mirror / "nltk_data/packages/corpora/timit.zip"
    if not archive.is_file():
        pytest.skip("SPEECHATTN_MIRROR holds no TIMIT sample")
    return archive


@pytest.fixture(scope="session")
def speech(timit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """A few utterances of the TIMIT sample, (N,) float32 each."""
    folder = tmp_path_factory.mktemp("speech")
    with zipfile.ZipFile(timit_archive) as file:
        return [load_audio(file.extract(f"timit/{name}.wav", folder)) for name in UTTERANCES]


@pytest.fixture(scope="session")
def tone_corpus(tmp_path_factory) -> Path:
    """A corpus that can be learned in seconds: each phone is a tone of its own. {train,dev,test}.jsonl.gz."""
    from speechattn.cuts.files import save_splits, utterance_cut
    from speechattn.labels.intervals import Interval

    folder = tmp_path_factory.mktemp("tones")
    generator = np.random.default_rng(0)
    tones = {"SIL": 0.0, "AA": 300.0, "IY": 700.0, "S": 3000.0}
    splits: dict[str, list] = {}
    for split, count in (("train", 24), ("dev", 6), ("test", 6)):
        splits[split] = []
        for number in range(count):
            pieces, intervals, time = [], [], 0
            for _ in range(int(generator.integers(5, 9))):
                symbol = str(generator.choice(list(tones)))
                length = int(generator.integers(1200, 4000))
                phase = 2 * np.pi * tones[symbol] * np.arange(length) / 16000
                pieces.append(0.3 * np.sin(phase) + 0.003 * generator.standard_normal(length))
                intervals.append(Interval(time, time + length, symbol))
                time += length
            path = folder / f"{split}-{number}.flac"
            soundfile.write(path, np.concatenate(pieces), 16000)
            splits[split].append(
                utterance_cut(
                    f"{split}-{number}", path, speaker=f"{split}-speaker-{number % 2}", text="", intervals=intervals
                )
            )
    save_splits(folder, splits)
    return folder


@pytest.fixture
def config(tone_corpus: Path, tmp_path: Path) -> TrainConfig:
    """A training that learns those tones in seconds."""
    from speechattn.batches.spec_augment import SpecAugmentConfig
    from speechattn.frontend import FrontendConfig
    from speechattn.model.config import ClassifierConfig, EncoderConfig
    from speechattn.training.config import DataConfig, OptimConfig, TrainConfig

    return TrainConfig(
        output=str(tmp_path / "model"),
        data=DataConfig(
            train=str(tone_corpus / "train.jsonl.gz"),
            dev=str(tone_corpus / "dev.jsonl.gz"),
            batch_seconds=4.0,
            num_workers=0,
        ),
        model=ClassifierConfig(
            frontend=FrontendConfig(normalisation="global"),
            encoder=EncoderConfig(dim=32, layers=1, heads=2, left=4, right=4, feed_forward=32, conv_kernel=3),
        ),
        spec_augment=SpecAugmentConfig(freq_masks=1, freq_width=2, time_masks_per_s=0.5, time_width=3),
        optim=OptimConfig(epochs=6, learning_rate=5e-3, average=0.9),
    )


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny untrained model of the 41 ARPAbet classes, saved."""
    from speechattn.model.classifier import FrameClassifier
    from speechattn.model.config import ClassifierConfig, EncoderConfig

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    encoder = EncoderConfig(dim=16, layers=1, heads=2, left=4, right=4, feed_forward=16, conv_kernel=3)
    FrameClassifier(ClassifierConfig(encoder=encoder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def librispeech(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """A small LibriSpeech: the mirror that has it, and what it consists of."""
    pytest.importorskip("espeakng_loader", reason="eSpeak NG is an optional extra")
    folder = tmp_path_factory.mktemp("librispeech")
    utterances = make_utterances(folder / "spoken")
    make_mirror(folder / "mirror", utterances)
    return MadeCorpus(folder / "mirror", utterances)
