"""Models on the Hugging Face Hub: fetched by their id, uploaded with a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from speechattn.model.classifier import FrameClassifier

__all__ = ["card_summary", "default_card", "fetch", "push"]


def fetch(name: str, files: Sequence[str]) -> Path:
    """The folder that holds a model's files, from the Hub or the cache of an earlier call.

    Args:
        name: `owner/name`.
        files: Those that are wanted, of those that it has.

    Raises:
        ValueError: When the Hub has none of that name, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the hub's errors share no base class: not found, no network, no permission
        raise ValueError(f"no folder {name} here, and not on the Hugging Face Hub: {_one_line(error)}") from error


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload the files of a folder as one commit; returns its address.

    Args:
        folder: The folder.
        name: `owner/name`; made when there is none.
        private: Whether others may not see it, if it is made now.

    Raises:
        ValueError: When the Hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="A speechattn model").commit_url)
    except Exception as error:  # likewise
        raise ValueError(f"{name} cannot be uploaded to the Hugging Face Hub: {_one_line(error)}") from error


def card_summary(card: Path) -> str:
    """The first paragraph of a model card as one line; empty without a file or a paragraph."""
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    if text.startswith("---\n"):  # the Hub's metadata
        text = text.partition("\n---\n")[2]
    paragraphs = (" ".join(block.split()) for block in text.split("\n\n"))
    return next((text for text in paragraphs if text and text[0] not in "#`|!-"), "")


def default_card(model: FrameClassifier, name: str) -> str:
    """What a model tells of itself, in Markdown, with the Hub's metadata before it."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lookahead = "the whole recording" if model.lookahead_ms is None else f"{model.lookahead_ms:g} ms"
    return f"""---
library_name: speechattn
tags: [speech, phonemes, frame-classification]
---

# {name}

A phone for every frame of speech. Kind `{model.config.kind}`, {parameters:,} parameters, {len(model.phones)} phones
({" ".join(model.phones.symbols)}), look-ahead {lookahead}.

```python
from speechattn import FrameClassifier

model = FrameClassifier.from_pretrained("{name}")
for segment in model.classify("a.wav"):
    print(segment.phone, segment.start, segment.end, segment.confidence)
```
"""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
