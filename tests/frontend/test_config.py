"""Configurations: presets, overrides, what follows from them, and errors that name the field."""

from dataclasses import FrozenInstanceError, asdict, fields, replace
from typing import Any

import numpy as np
import pytest
from signals import vowels

from speechattn.frontend import Fbank, FrontendConfig, Mfcc, Spectrogram, make_frontend
from speechattn.frontend.config import CHOICES, FRONTEND_PRESETS

# For each field: two values, and the other fields under which the choice between them shows in the features.
ENERGY = {"use_energy": True}
SLIDING = {"normalisation": "sliding", "cmn_window": 5, "min_cmn_window": 2}
ALTERNATIVES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "preset": ("kaldi", "htk", {}),
    "kind": ("mfcc", "fbank", {}),
    "sample_rate": (16000, 8000, {}),
    "window_ms": (25.0, 20.0, {}),
    "hop_ms": (10.0, 12.5, {}),
    "n_fft": (512, 1024, {}),
    "scale": (32768.0, 1.0, {}),
    "snip_edges": (True, False, {"edge_padding": "mirror"}),
    "edge_padding": ("zero", "reflect", {"snip_edges": False}),
    "remove_dc": (True, False, {}),
    "preemphasis": (0.97, 0.5, {}),
    "preemphasis_over": ("frame", "signal", {"preemphasis": 0.97}),
    "window_type": ("hamming", "hann", {}),
    "power": (1, 2, {"periodogram": False}),
    "periodogram": (True, False, {"power": 2}),
    "num_mels": (23, 40, {}),
    "mel_filters": ("mel", "hertz", {}),
    "low_freq": (20.0, 300.0, {}),
    "high_freq": (0.0, -400.0, {}),
    "decibels": (True, False, {"top_db": 0.0}),
    "floor": (1e-10, 1e9, {"top_db": 0.0}),
    "top_db": (80.0, 10.0, {"decibels": True}),
    "num_ceps": (13, 12, {}),
    "lifter": (22.0, 0.0, {}),
    "htk_compat": (True, False, {}),
    "use_energy": (True, False, {}),
    "energy_from": ("samples", "spectrum", ENERGY),
    "energy_floor": (0.0, 1e12, ENERGY),
    "delta_order": (2, 1, {}),
    "delta_window": (2, 3, {}),
    "delta_rule": ("kaldi", "torchaudio", {}),
    "normalisation": ("none", "utterance", {}),
    "normalise_variance": (True, False, {"normalisation": "utterance"}),
    "unbiased": (True, False, {"normalisation": "utterance"}),
    "cmn_window": (5, 3, SLIDING),
    "min_cmn_window": (2, 4, SLIDING),
    "center_cmn": (True, False, SLIDING),
    "global_frames": (200, 2, {"normalisation": "online", "cmn_window": 5}),
    "cmn_min_range": (0.0, 1e9, {"normalisation": "online", "cmn_window": 5}),
}


def test_there_are_alternatives_for_every_field() -> None:
    assert list(ALTERNATIVES) == [field.name for field in fields(FrontendConfig)]


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
@pytest.mark.parametrize("name", [name for name in ALTERNATIVES if name != "preset"])
def test_every_field_can_be_overridden_and_no_other_changes(name: str, preset: str) -> None:
    for value in ALTERNATIVES[name][:2]:
        others = {other: setting for other, setting in ALTERNATIVES[name][2].items() if other != name}
        base, config = FrontendConfig(preset, **others), FrontendConfig(preset, **{**others, name: value})
        assert getattr(config, name) == value and replace(base, **{name: value}) == config
        for field in fields(FrontendConfig):
            assert field.name == name or getattr(config, field.name) == getattr(base, field.name)


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_every_field_changes_the_features(name: str) -> None:
    one, other, base = ALTERNATIVES[name]
    samples = vowels(3000) + np.float32(0.02)
    features = [make_frontend(FrontendConfig(**{**base, name: value}))(samples) for value in (one, other)]
    assert features[0].shape != features[1].shape or not np.allclose(*features, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_presets_decide_every_field_that_is_none(preset: str) -> None:
    assert {*FRONTEND_PRESETS[preset], "delta_order"} == {
        field.name for field in fields(FrontendConfig) if field.default is None
    }
    resolved = FrontendConfig(preset).resolved
    assert all(getattr(resolved, name) == value for name, value in FRONTEND_PRESETS[preset].items())
    assert None not in asdict(resolved).values() and resolved.resolved is resolved
    assert FrontendConfig(**asdict(resolved)) == resolved  # as config.json holds it
    given = FrontendConfig(preset, num_mels=41, high_freq=-300.0).resolved
    assert given == replace(resolved, num_mels=41, high_freq=-300.0)


@pytest.mark.parametrize("preset", FRONTEND_PRESETS)
def test_another_preset_brings_its_own_values_and_keeps_what_was_set(preset: str) -> None:
    assert replace(FrontendConfig(), preset=preset) == FrontendConfig(preset)
    config = replace(FrontendConfig("librosa", num_mels=40, delta_order=1), preset=preset)
    assert config.resolved == FrontendConfig(preset, num_mels=40, delta_order=1).resolved
    samples = vowels(3000)
    np.testing.assert_array_equal(Mfcc(config=config)(samples), Mfcc(preset, num_mels=40, delta_order=1)(samples))


@pytest.mark.parametrize("kind, order, dim", [("mfcc", 2, 39), ("fbank", 0, 23), ("spectrogram", 0, 257)])
def test_the_kind_decides_what_is_computed_and_whether_with_deltas(kind: str, order: int, dim: int) -> None:
    config = FrontendConfig(kind=kind)
    assert (config.resolved.delta_order, config.delta_reach) == (order, 2 * order)
    front_end = make_frontend(config)
    assert type(front_end) is {"mfcc": Mfcc, "fbank": Fbank, "spectrogram": Spectrogram}[kind]
    assert front_end.config == type(front_end)().config == config.resolved and front_end.dim == dim
    assert make_frontend(replace(config, delta_order=1)).dim == 2 * dim // (order + 1)


def test_only_mfcc_limit_the_cepstra_by_the_filters() -> None:
    assert Fbank(num_mels=8).dim == 8
    with pytest.raises(ValueError, match="num_ceps must lie in"):
        replace(FrontendConfig(kind="fbank", num_mels=8), kind="mfcc")


def test_a_configuration_is_frozen_and_equal_to_its_like() -> None:
    assert FrontendConfig() == FrontendConfig("kaldi", window_ms=25.0) and hash(FrontendConfig()) == hash(
        FrontendConfig("kaldi")
    )
    assert FrontendConfig() != FrontendConfig("htk")
    with pytest.raises(FrozenInstanceError):
        FrontendConfig().hop_ms = 5.0  # type: ignore[misc]


# --------------------------------------------------------------------------------------------- what follows from it


@pytest.mark.parametrize(
    "preset, first_centre, counts",
    [  # frames of 0, 399, 400, 479, 480, 559, 560, 561 and 16,000 samples
        ("kaldi", 200, [0, 0, 1, 1, 1, 1, 2, 2, 98]),
        ("htk", 200, [0, 0, 1, 1, 1, 1, 2, 2, 98]),
        ("librosa", 0, [0, 0, 3, 3, 4, 4, 4, 4, 101]),
        ("torchaudio", 0, [0, 0, 3, 3, 4, 4, 4, 4, 101]),
        ("python_speech_features", 200, [0, 0, 1, 2, 2, 2, 2, 3, 99]),
        ("libriphone", 200, [0, 0, 1, 1, 1, 1, 2, 2, 98]),
    ],
)
def test_geometry_of_the_presets(preset: str, first_centre: int, counts: list[int]) -> None:
    geometry = FrontendConfig(preset).geometry
    assert (geometry.sample_rate, geometry.window, geometry.hop) == (16000, 400, 160)
    assert geometry.first_centre == first_centre
    assert [geometry.num_frames(n) for n in (0, 399, 400, 479, 480, 559, 560, 561, 16_000)] == counts
    assert Mfcc(preset).geometry == Fbank(preset).geometry == Spectrogram(preset).geometry == geometry


def test_geometry_of_kaldi_without_snipped_edges() -> None:
    geometry = FrontendConfig(snip_edges=False).geometry
    assert geometry.first_centre == 80  # half a hop
    assert [geometry.num_frames(n) for n in (0, 399, 400, 479, 559, 560, 16_000)] == [0, 0, 3, 3, 3, 4, 100]


@pytest.mark.parametrize(
    "sample_rate, window, hop, n_fft, rounded",
    [
        (8000, 200, 80, 256, (200, 80)),
        (11025, 275, 110, 512, (276, 110)),
        (16000, 400, 160, 512, (400, 160)),
        (22050, 551, 220, 1024, (551, 221)),
        (44100, 1102, 441, 2048, (1103, 441)),
        (48000, 1200, 480, 2048, (1200, 480)),
    ],
)
def test_milliseconds_become_samples(
    sample_rate: int, window: int, hop: int, n_fft: int, rounded: tuple[int, int]
) -> None:
    for preset in FRONTEND_PRESETS:
        config = FrontendConfig(preset, sample_rate=sample_rate)
        # python_speech_features rounds half a sample up, the others cut it off
        expected = rounded if preset == "python_speech_features" else (window, hop)
        assert (config.window, config.hop) == expected
        assert config.fft_length == (window if preset == "torchaudio" else n_fft)
        assert config.highest_freq == sample_rate / 2


def test_times_that_are_not_whole_in_binary_lose_no_sample() -> None:
    for sample_rate in (16000, 22050, 44100):
        for samples in range(2, 1300):
            milliseconds = 1000 * samples / sample_rate
            config = FrontendConfig(sample_rate=sample_rate, window_ms=milliseconds, hop_ms=milliseconds)
            assert (config.window, config.hop) == (samples, samples)


def test_length_of_the_transform() -> None:
    assert FrontendConfig(window_ms=32).fft_length == 512 and FrontendConfig(window_ms=513 / 16).fft_length == 1024
    assert FrontendConfig(n_fft=-1).fft_length == 400 and FrontendConfig(n_fft=778).fft_length == 778


@pytest.mark.parametrize("order", [0, 1, 2])
def test_features_per_frame(order: int) -> None:
    assert Mfcc(delta_order=order, num_ceps=12).dim == 12 * (order + 1)
    assert Fbank(delta_order=order, num_mels=40).dim == 40 * (order + 1)
    assert Spectrogram(delta_order=order).dim == 257 * (order + 1)


def test_only_what_needs_the_whole_utterance_cannot_stream() -> None:
    assert {preset for preset in FRONTEND_PRESETS if FrontendConfig(preset).streams} == {
        "kaldi",
        "htk",
        "python_speech_features",
    }
    assert (
        FrontendConfig("librosa", top_db=0.0).streams and FrontendConfig("libriphone", normalisation="sliding").streams
    )
    assert not FrontendConfig(normalisation="utterance").streams


def test_fbank_and_spectrogram_take_a_configuration_or_fields_without_deltas() -> None:
    for kind, front_end in (("fbank", Fbank), ("spectrogram", Spectrogram)):
        assert front_end("htk", num_mels=30).config == FrontendConfig("htk", kind=kind, num_mels=30).resolved
        assert (
            front_end(config=FrontendConfig("htk")).config == FrontendConfig("htk", kind=kind, delta_order=2).resolved
        )
    assert Mfcc(config=FrontendConfig("htk")).config == Mfcc("htk").config == FrontendConfig("htk").resolved


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", CHOICES)
def test_something_that_is_no_choice_is_named_with_the_choices(name: str) -> None:
    listed = ", ".join(str(choice) for choice in CHOICES[name])
    with pytest.raises(ValueError, match=f"{name} must be one of {listed}, got {name}='other'"):
        FrontendConfig(**{name: "other"})


@pytest.mark.parametrize(
    "values, message",
    [
        ({"num_ceps": 24}, r"num_ceps must lie in 1\.\.num_mels=23, got num_ceps=24"),
        ({"num_ceps": 0}, "got num_ceps=0"),
        ({"delta_order": 3}, "delta_order must be one of 0, 1, 2, got delta_order=3"),
        *(
            ({name: value}, f"{name} must be positive, got {name}={value}")
            for name in ("sample_rate", "window_ms", "hop_ms", "scale", "floor", "delta_window", "cmn_window")
            for value in (0, -1)
        ),
        *(
            ({name: -0.5}, f"{name} must not be negative, got {name}=-0.5")
            for name in ("preemphasis", "top_db", "lifter", "energy_floor", "min_cmn_window")
        ),
        ({"floor": float("nan")}, "floor must be positive, got floor=nan"),
        ({"periodogram": True, "power": 1}, "periodogram=True needs power=2, got power=1"),
        ({"window_ms": 0.1}, "a frame needs 2 samples and a hop 1, got window_ms=0.1 and hop_ms=10 at 16000 Hz"),
        ({"hop_ms": 0.01}, "a frame needs 2 samples and a hop 1, got window_ms=25 and hop_ms=0.01"),
        ({"top_db": 80.0}, "top_db needs decibels=True, got top_db=80"),
        ({"preset": "librosa", "decibels": False}, "top_db needs decibels=True, got top_db=80"),
        ({"low_freq": -1.0}, "low_freq=-1"),
        ({"low_freq": 4000.0, "high_freq": 4000.0}, "low_freq < high_freq <= 8000 Hz.*high_freq=4000"),
        ({"high_freq": 8001.0}, "high_freq=8001"),
        ({"high_freq": -8000.0}, "high_freq=-8000"),
        ({"n_fft": 399}, "n_fft must be at least the window, 400, got n_fft=399"),
        ({"n_fft": 401}, "mel_filters='mel' needs an even n_fft, got 401 samples"),
        ({"snip_edges": False, "hop_ms": 26.0}, "edge_padding='mirror' needs hop_ms <= window_ms, got .*hop_ms=26"),
    ],
    ids=str,
)
def test_a_setting_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrontendConfig(**values)
