"""The examples in README.md run, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.mark.parametrize("example", [code for code in EXAMPLES if "from_pretrained" not in code])
def test_an_example_runs(example, capsys):
    exec(example, {})
    for expected in re.findall(r"print\(.*\) +# (.*)", example):
        assert expected in capsys.readouterr().out


def test_there_are_examples_and_make_knows_the_two_commands():
    assert len(EXAMPLES) == 4
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    for command in re.findall(r"^make ([a-z-]+)", README, flags=re.M):
        assert command in targets


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link
