"""Start training from another model, for the same phones or for others."""

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
    """Load a model's shape, weights and front end, and give it the phone set of `config`.

    If the phone set changes, the output layer keeps its rows for phones of the same name, ignoring case (`AA` in
    CMUdict, `aa` in TIMIT); the others are initialised at random. A model with pooling keeps its labels unless
    `config.symbols` is given, because they are not a named phone set.

    Args:
        config: Only `phones` and `symbols` are used.
        init: A folder, or a name as for `FrameClassifier.from_pretrained`.

    Returns:
        The model; in training mode unless it is returned as loaded.

    Raises:
        ValueError: If there is no such model or phone set.
    """
    start = FrameClassifier.from_pretrained(init)
    if start.pooling is not None and not config.symbols:
        return start
    symbols = config.symbols or PhoneSet.load(config.phones).symbols
    if same_phones := set(symbols) == set(start.phones.symbols):
        symbols = start.phones.symbols  # in the order of its output layer
    model = FrameClassifier(replace(start.config, phones=config.phones, symbols=symbols))
    weights = start.state_dict()
    if not same_phones:
        weights = {name: value for name, value in weights.items() if not name.startswith("output.")}
    model.load_state_dict(model.state_dict() | weights)
    if not same_phones:
        num_new = len(symbols) - _copy_output_rows(start, model)
        log.info("%s has another phone set: %d of %d output rows start at random", init, num_new, len(symbols))
    return model


@torch.no_grad()
def _copy_output_rows(start: FrameClassifier, model: FrameClassifier) -> int:
    """Copy the output layer's rows of shared phones; returns their number."""
    exact = {symbol: row for row, symbol in enumerate(start.phones.symbols)}
    lower = {symbol.lower(): row for symbol, row in exact.items()}
    rows = [exact.get(symbol, lower.get(symbol.lower())) for symbol in model.phones.symbols]
    pairs = [(new, old) for new, old in enumerate(rows) if old is not None]
    for new, old in pairs:
        model.output.weight[new], model.output.bias[new] = start.output.weight[old], start.output.bias[old]
    return len(pairs)
