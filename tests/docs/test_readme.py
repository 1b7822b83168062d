"""Examples in the documentation run, and links have targets."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from documentation import PAGES, ROOT, blocks

from speechattn import FrameClassifier
from speechattn.decoding.smoothing import Phonotactics

# Scripts with command-line arguments are run by the tests of the feature that they show.
EXAMPLES = {
    page: [code for code in blocks(text, "python") if "sys.argv" not in code]
    for page, text in PAGES.items()
    if "```python" in text
}
MODELS = ("english-small", "exp/model", "exp/quickstart/model")  # loaded by examples; a local folder takes precedence


@pytest.fixture
def stand_ins(tmp_path: Path, model_folder: Path, tone_corpus: Path, monkeypatch) -> Path:
    """A folder with the files that examples use: small untrained models, a recording, cuts."""
    model = FrameClassifier.from_pretrained(model_folder)
    ones = (1,) * (phones := len(model.phones))
    model.phonotactics = Phonotactics((ones,) * phones, ones, (phones,) * phones, (3 * phones,) * phones, ones)
    for name in MODELS:
        model.save_pretrained(tmp_path / name)
    (tmp_path / "exp/data").symlink_to(tone_corpus)
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(44100), 44100)
    monkeypatch.setattr("speechattn.model.classifier.push", lambda folder, name, private=False: name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", EXAMPLES)
def test_the_examples_of_a_page_run_one_after_the_other(page, stand_ins, capsys):
    samples = (1000 * np.random.default_rng(0).standard_normal(16000)).astype(np.int16)
    names = {"samples": samples, "pieces": np.split(samples, 10)}  # for live examples
    for number, example in enumerate(EXAMPLES[page]):
        if "torch.onnx" in example:
            pytest.importorskip("onnxscript")
        exec(compile(example, f"{page}, example {number}", "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        for expected in re.findall(r"^ *print\(.*\)  # (.*)", example, flags=re.M):
            assert expected in printed


def test_pages_have_their_examples():
    minimum = {
        "README.md": 3,
        "docs/attention.md": 6,
        "docs/frontend.md": 6,
        "docs/own_data.md": 2,
        "docs/questions.md": 9,
    }
    for page, number in (minimum | {"docs/tour.md": 1, "docs/prediction.md": 3}).items():
        assert len(EXAMPLES[page]) >= number, page


def test_make_knows_its_commands():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    shown = "\n".join(code for text in PAGES.values() for code in blocks(text, ""))
    named = set(
        re.findall(r"^make ([a-z-]+)", shown, flags=re.M) + re.findall(r"`make ([a-z-]+)`", "".join(PAGES.values()))
    )
    assert {"quickstart", "test", "docs"} <= named <= set(targets)


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code-hosting sites make them."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_have_targets():
    for page, text in PAGES.items():
        for link, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", text):
            target = ((ROOT / page).parent / link).resolve() if link else ROOT / page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                assert anchor in _anchors(PAGES[target.relative_to(ROOT).as_posix()]), f"{page}: {link}#{anchor}"


def test_named_files_exist():
    for page, text in PAGES.items():
        for path in re.findall(r"`((?:speechattn|benchmarks|docs|recipes)/[\w./-]*\w)/?`", text):
            assert (ROOT / path.replace("RECIPE", "quickstart")).exists(), f"{page}: {path}"


def test_the_code_page_lists_every_room():
    listed = re.findall(r"^  (\w+)(?:/|\.py) ", PAGES["docs/code.md"], flags=re.M)
    entries = [path for path in (ROOT / "speechattn").iterdir() if path.suffix in ("", ".py")]
    assert sorted(listed) == sorted(path.stem for path in entries if not path.stem.startswith("_"))
