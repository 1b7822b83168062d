"""Models whose front end is `Fbank`: from YAML to training, streaming and loading; and configurations saved before."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from signals import vowels

from speechattn.batches.spec_augment import SpecAugment, SpecAugmentConfig
from speechattn.commands.main import main
from speechattn.frontend import Fbank, FrontendConfig
from speechattn.frontend.config import FRONTEND_PRESETS
from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig

FBANK = FrontendConfig(kind="fbank", num_mels=20)


def linear(frontend: FrontendConfig) -> FrameClassifier:
    return FrameClassifier(ClassifierConfig(phones="timit39", kind="linear", frontend=frontend)).eval()


@pytest.mark.parametrize("normalisation", ["global", "online"])
def test_training_learns_statistics_of_log_mel_energies_and_streams(
    normalisation: str, tone_corpus: Path, tmp_path: Path
) -> None:
    config, output = tmp_path / "conf.yaml", tmp_path / "model"
    config.write_text(
        "model: {kind: linear, frontend: {kind: fbank, num_mels: 80}}\n"
        "spec_augment: {freq_masks: 1, freq_width: 10, warp: 0.1}\n"
    )
    data = [f"--data.{split}={tone_corpus / split}.jsonl.gz" for split in ("train", "dev")]
    train = ["train", f"--config={config}", f"--output={output}", f"--model.frontend.normalisation={normalisation}"]
    main([*train, "--optim.epochs=2", "--data.num_workers=0", *data])
    model = FrameClassifier.from_pretrained(output)
    assert isinstance(model.frontend, Fbank) and model.frontend.dim == 80 and model.lookahead == 0
    assert model.frontend.mean.abs().min() > 0 and (model.frontend.scale != 1).all()
    samples = vowels(20_000)
    expected = np.log(model.posteriors(samples))
    stream = model.stream()
    parts = [stream.push(samples[begin : begin + 1234]) for begin in range(0, len(samples), 1234)]
    np.testing.assert_allclose(np.concatenate([*parts, stream.flush()]), expected, atol=1e-4)


def test_spec_augment_masks_the_log_mel_energies() -> None:
    waveforms, model = torch.from_numpy(vowels(8000))[None], linear(FBANK)
    transform = SpecAugment(SpecAugmentConfig(freq_masks=2, freq_width=8), [3], FBANK)
    features, frame_lengths = model.frontend(waveforms)
    masked, _ = model.frontend(waveforms, log_mel_transform=transform)
    assert torch.equal(masked, transform(features, frame_lengths)) and not torch.equal(masked, features)
    assert not torch.equal(model(waveforms, log_mel_transform=transform)[0], model(waveforms)[0])


def test_a_saved_model_holds_resolved_values(tmp_path: Path) -> None:
    model = linear(replace(FBANK, preset="htk"))
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())["frontend"]
    assert saved == {**saved, **FRONTEND_PRESETS["htk"], "kind": "fbank", "num_mels": 20, "delta_order": 0}
    assert None not in saved.values() and FrontendConfig(**saved) == model.frontend.config == model.config.frontend
    loaded, samples = FrameClassifier.from_pretrained(tmp_path), vowels(4000)
    np.testing.assert_array_equal(loaded.posteriors(samples), model.posteriors(samples))


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_configurations_saved_before_there_were_kinds_give_the_same_mfcc(preset: str) -> None:
    saved = {name: value for name, value in asdict(FrontendConfig(preset).resolved).items() if name != "kind"}
    config = ClassifierConfig.from_dict({"phones": "timit39", "kind": "linear", "frontend": saved})
    old, new = linear(config.frontend), linear(FrontendConfig(preset))
    assert old.config.frontend == new.config.frontend
    waveforms = torch.from_numpy(vowels(4000))[None]
    assert torch.equal(old.frontend(waveforms)[0], new.frontend(waveforms)[0])


def test_a_model_takes_no_spectrogram() -> None:
    with pytest.raises(ValueError, match="model.frontend.kind must be mfcc or fbank"):
        ClassifierConfig(frontend=FrontendConfig(kind="spectrogram"))
