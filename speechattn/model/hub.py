"""Models on the Hugging Face Hub: fetch, upload, and the model card."""

import logging
from collections.abc import Sequence
from pathlib import Path

__all__ = ["card_summary", "default_card", "fetch", "push"]

logger = logging.getLogger("speechattn")


def fetch(name: str, files: Sequence[str]) -> Path:
    """Folder with a model's files, downloaded or from the cache. What is loaded is logged.

    Args:
        name: `owner/name`.
        files: File names; those that the model lacks are skipped.

    Raises:
        ValueError: When the Hub has no such model or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(files)))
    except Exception as error:  # the hub's errors have no common base class
        raise ValueError(f"hf:{name} cannot be loaded from the Hugging Face Hub: {_one_line(error)}") from error
    found = ", ".join(file for file in files if (folder / file).is_file())
    logger.info("hf:%s: loading %s from the Hugging Face Hub, revision %s", name, found, folder.name)
    return folder


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload the files of a folder in one commit and return its URL.

    Args:
        folder: The folder.
        name: `owner/name`; created if missing.
        private: Whether a repository created now is private.

    Raises:
        ValueError: When the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message="A speechattn model").commit_url)
    except Exception as error:
        raise ValueError(f"{name} cannot be uploaded to the Hugging Face Hub: {_one_line(error)}") from error


def card_summary(card: Path) -> str:
    """First paragraph of a model card as one line; empty if there is none."""
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    if text.startswith("---\n"):  # the Hub's metadata
        text = text.partition("\n---\n")[2]
    paragraphs = (" ".join(block.split()) for block in text.split("\n\n"))
    return next((text for text in paragraphs if text and text[0] not in "#`|!-"), "")


def default_card(name: str, kind: str, num_parameters: int, symbols: Sequence[str], lookahead_ms: float | None) -> str:
    """A model card in Markdown, from the model's configuration alone."""
    lookahead = "the whole recording" if lookahead_ms is None else f"{lookahead_ms:g} ms"
    return f"""---
library_name: speechattn
tags: [speech, phonemes, frame-classification]
---

# {name}

A phone for every frame of speech. Kind `{kind}`, {num_parameters:,} parameters, {len(symbols)} phones
({" ".join(symbols)}), look-ahead {lookahead}.

```python
from speechattn import FrameClassifier

model = FrameClassifier.from_pretrained("hf:{name}")
for segment in model.classify("a.wav"):
    print(segment.phone, segment.start, segment.end, segment.confidence)
```
"""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
