"""A trained model to go on from, for the same phones or for others."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from speechattn.model.classifier import FrameClassifier
from speechattn.model.config import ClassifierConfig
from speechattn.phones import PhoneSet

__all__ = ["model_to_tune"]

log = logging.getLogger("speechattn")


def model_to_tune(config: ClassifierConfig, init: str | Path) -> FrameClassifier:
    """A model with the shape, the weights and the front end of another, and the phones that are asked for.

    Where its phones are others, the output layer keeps what it has for those of the same name, in upper or lower case
    (`AA` of CMUdict, `aa` of TIMIT), and begins afresh for the rest. A model with pooling, whose labels are in no named
    set, stays as it is unless `config.symbols` are given.

    Args:
        config: Of it only `phones` and `symbols` count.
        init: A folder, or a name as for `FrameClassifier.from_pretrained`.

    Returns:
        The model, in training mode where it was built anew.

    Raises:
        ValueError: When there is no such model or phone set.
    """
    start = FrameClassifier.from_pretrained(init)
    if start.pooling is not None and not config.symbols:
        return start
    symbols = config.symbols or PhoneSet.load(config.phones).symbols
    if same := set(symbols) == set(start.phones.symbols):
        symbols = start.phones.symbols  # in its order
    model = FrameClassifier(replace(start.config, phones=config.phones, symbols=symbols))
    kept = {name: value for name, value in start.state_dict().items() if same or not name.startswith("output.")}
    model.load_state_dict(model.state_dict() | kept)
    if not same:
        rows = _keep_output_rows(start, model)
        log.info(
            "%s has other phones: all is kept but the output for %d of the %d", init, len(symbols) - rows, len(symbols)
        )
    return model


@torch.no_grad()
def _keep_output_rows(start: FrameClassifier, model: FrameClassifier) -> int:
    """Copy the output layer's rows of the phones that both have; how many those are."""
    lower = {symbol.lower(): row for row, symbol in enumerate(start.phones.symbols)}
    exact = {symbol: row for row, symbol in enumerate(start.phones.symbols)}
    rows = {new: exact.get(symbol, lower.get(symbol.lower())) for new, symbol in enumerate(model.phones.symbols)}
    pairs = [(new, old) for new, old in rows.items() if old is not None]
    for new, old in pairs:
        model.output.weight[new], model.output.bias[new] = start.output.weight[old], start.output.bias[old]
    return len(pairs)
