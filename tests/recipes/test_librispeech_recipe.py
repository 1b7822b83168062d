"""The LibriSpeech recipe from download over loopback HTTP to a scored test set, with each source of labels."""

import json
import os

import pytest
from in_process_recipe import run_recipe
from made_librispeech import MadeCorpus
from served_folder import served
from tiny_configuration import write_tiny

from speechattn.cuts.files import read_cuts

ARPABET = {"phones": "arpabet41"}
CPC = {"phones": "cpc41"}


@pytest.mark.parametrize(
    ("options", "phones", "sizes"),
    [
        (["--subsets", "train-clean-5,dev-clean-2"], ARPABET, (12, 4, 4)),
        (["--labels", "align"], ARPABET, (12, 4, 4)),
        (["--labels", "cpc"], CPC, (8, 1, 3)),
    ],
    ids=["mini-mfa", "align", "cpc"],
)
def test_from_download_to_scores(librispeech: MadeCorpus, tmp_path, monkeypatch, options, phones, sizes):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # another process would cost more than it saves
    conf = write_tiny(tmp_path / "tiny.yaml", epochs=2, learning_rate=2e-2, batch_seconds=6, **phones)
    exp = tmp_path / "exp"
    with served(librispeech.mirror) as address:
        places = ["--mirror", address, "--corpus-dir", tmp_path / "corpus", "--exp-dir", exp]
        result = run_recipe("librispeech", *places, "--conf", conf, "--", *options, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("LibriSpeech: CC BY 4.0") == 1
    assert tuple(len(read_cuts(exp / f"data/{split}.jsonl.gz")) for split in ("train", "dev", "test")) == sizes
    for split, size in (("dev", sizes[1]), ("test", sizes[2])):
        figures = json.loads((exp / f"report/{split}.json").read_text())
        assert figures["num_utterances"] == size
        assert figures["frame_accuracy"] > 0.06  # chance: 0.024
        assert figures.get("utterances_of_training_speakers", 0) == (size if phones is CPC else 0)
    assert ("3 of the 3 utterances are by speakers of the training set" in result.stdout) == (phones is CPC)
    ids = {cut.id for cut in read_cuts(exp / "data/test.jsonl.gz")}
    assert {path.stem for path in (exp / "textgrid").glob("*.TextGrid")} == ids


def test_a_bad_option_of_the_corpus_is_one_line(tmp_path):
    result = run_recipe(
        "librispeech", "--corpus-dir", tmp_path, "--exp-dir", tmp_path, "--", "--labels", "cpcs", folder=tmp_path
    )
    assert result.returncode == 2
    assert result.stderr == "speechattn: error: labels must be one of mfa, cpc, align, got 'cpcs'\n"
