"""The examples in README.md and docs/ run, their links lead somewhere, and the commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
EXAMPLES = [
    (name, code) for name, text in TEXTS.items() for code in re.findall(r"```python\n(.*?)```", text, flags=re.S)
]


NEED_A_MODEL = ("from_pretrained", "onnxruntime")  # the latter run in test_export.py


@pytest.mark.parametrize("example", [code for _, code in EXAMPLES if not any(word in code for word in NEED_A_MODEL)])
def test_an_example_runs(example, capsys, tmp_path, monkeypatch):
    if "torch.onnx" in example:
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    printed = capsys.readouterr().out.splitlines()
    for expected in re.findall(r"^ *print\(.*\)  # (.*)", example, flags=re.M):
        assert expected in printed


def test_there_are_examples_and_make_knows_the_two_commands():
    names = [name for name, _ in EXAMPLES]
    assert names.count("README.md") == 5 and names.count("frontend.md") == 6 and names.count("attention.md") == 6
    assert names.count("own_data.md") == 2 and names.count("export.md") == 2
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    for command in re.findall(r"^make ([a-z-]+)", TEXTS["README.md"], flags=re.M):
        assert command in targets


def test_links_lead_somewhere():
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", TEXTS[page.name]):
            assert (page.parent / link).exists(), link
