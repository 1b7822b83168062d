"""The examples of the documentation run, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from documentation import PAGES, ROOT, blocks

from speechattn import FrameClassifier
from speechattn.decoding.smoothing import Phonotactics

# Programs with arguments of their own are run where what they are for is tested.
EXAMPLES = {
    page: [code for code in blocks(text, "python") if "sys.argv" not in code]
    for page, text in PAGES.items()
    if "```python" in text
}
MODELS = ("english-small", "exp/model", "exp/quickstart/model")  # that examples load; a folder here goes first


@pytest.fixture
def stand_ins(tmp_path: Path, model_folder: Path, tone_corpus: Path, monkeypatch) -> Path:
    """A folder with what examples take as given: small untrained models, a recording, cuts."""
    model = FrameClassifier.from_pretrained(model_folder)
    ones = (1,) * (phones := len(model.phones))
    model.phonotactics = Phonotactics((ones,) * phones, ones, (phones,) * phones, (3 * phones,) * phones, ones)
    for name in MODELS:
        model.save_pretrained(tmp_path / name)
    (tmp_path / "exp/data").symlink_to(tone_corpus)
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(44100), 44100)
    monkeypatch.setattr("speechattn.model.hub.push", lambda folder, name, private=False: name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_examples_of_a_page_run_one_after_the_other(page, stand_ins, capsys):
    samples = (1000 * np.random.default_rng(0).standard_normal(16000)).astype(np.int16)
    names = {"samples": samples, "pieces": np.split(samples, 10)}  # what live examples are given
    for number, example in enumerate(EXAMPLES[page]):
        if "torch.onnx" in example:
            pytest.importorskip("onnxscript")
        exec(compile(example, f"{page}, example {number}", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        for expected in re.findall(r"^ *print\(.*\)  # (.*)", example, flags=re.M):
            assert expected in printed


def test_the_pages_that_should_have_examples_have_them():
    least = {
        "README.md": 5,
        "docs/attention.md": 6,
        "docs/frontend.md": 6,
        "docs/own_data.md": 2,
        "docs/questions.md": 9,
    }
    for page, number in (least | {"docs/tour.md": 1, "docs/prediction.md": 3}).items():
        assert len(EXAMPLES[page]) >= number, page


def test_make_knows_its_commands():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    shown = "\n".join(code for text in PAGES.values() for code in blocks(text, ""))
    named = set(
        re.findall(r"^make ([a-z-]+)", shown, flags=re.M) + re.findall(r"`make ([a-z-]+)`", "".join(PAGES.values()))
    )
    assert {"quickstart", "test", "docs"} <= named <= set(targets)


def _anchors(text: str) -> set[str]:
    """Of a page's headings, as code-hosting sites make them."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for page, text in PAGES.items():
        for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text):
            target = ((ROOT / page).parent / link).resolve() if link else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                assert anchor in _anchors(PAGES[target.relative_to(ROOT).as_posix()]), f"{page}: {link}#{anchor}"
