"""What `mixed_precision: auto` means."""

import pytest
import torch

from speechattn.training.precision import computes_in_bfloat16, resolve_mixed_precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "no"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({}, "no"),
    ],
)
def test_auto_is_bfloat16_only_where_there_are_units(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_mixed_precision("auto", torch.device("cpu")) == expected
    assert computes_in_bfloat16(torch.device("cpu")) == (expected == "bf16")


@pytest.mark.parametrize("setting", ["no", "bf16", "fp16"])
def test_other_settings_are_unchanged(setting):
    assert resolve_mixed_precision(setting, torch.device("cpu")) == setting


def test_a_release_of_torch_that_cannot_tell_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not computes_in_bfloat16(torch.device("cpu"))
    assert not computes_in_bfloat16(torch.device("meta"))
