"""`speechattn align`: cuts get their phones, a killed run goes on where it was, and nothing is dropped unsaid."""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from refused import refused

from speechattn.alignment.aligner import align_each
from speechattn.alignment.cuts import cut_utterance
from speechattn.alignment.lexicon import default_lexicon
from speechattn.alignment.pocketsphinx_engine import PocketSphinxEngine
from speechattn.commands.main import main
from speechattn.cuts.files import phone_intervals, read_cuts, save_cuts, utterance_cut

SPEAKER = "dr1-mcpm0"
SUFFIXES = ("", ".rejected.tsv", ".words.tsv")


@pytest.fixture(scope="module")
def corpus(timit_archive, tmp_path_factory):
    """10 utterances, one of them with an unknown word: a file of cuts with transcripts only."""
    folder = tmp_path_factory.mktemp("timit")
    cuts = []
    with zipfile.ZipFile(timit_archive) as file:
        for name in sorted(file.namelist()):
            speaker, _, stem = name.removeprefix("timit/").partition("/")
            if speaker == SPEAKER and stem.endswith(".wav"):
                text = file.read(name.replace(".wav", ".txt")).decode().split(maxsplit=2)[2].strip()
                path = Path(file.extract(name, folder))
                cuts.append(utterance_cut(f"{speaker}-{path.stem}", path, speaker=speaker, text=text))
    cuts[3].supervisions[0].text += " 42"
    save_cuts(folder / "cuts.jsonl.gz", cuts)
    return folder / "cuts.jsonl.gz"


@pytest.fixture(scope="module")
def uninterrupted(corpus):
    output = corpus.parent / "once.jsonl.gz"
    main(["align", "--cuts", str(corpus), "--output", str(output), "--num-jobs", "1"])
    return output


def test_every_utterance_has_phones_or_a_reason(corpus, uninterrupted):
    cuts = read_cuts(corpus)
    aligned = read_cuts(uninterrupted)
    rejected = dict(line.split("\t") for line in Path(f"{uninterrupted}.rejected.tsv").read_text().splitlines())
    assert sorted([*(cut.id for cut in aligned), *rejected]) == sorted(cut.id for cut in cuts)
    assert [cut.id for cut in aligned] == [cut.id for cut in cuts if cut.id not in rejected]
    odd = list(cuts)[3]
    assert rejected[odd.id] == "not in the lexicon: 42"
    assert Path(f"{uninterrupted}.words.tsv").read_text() == "42\tunknown\t\t1\n"
    assert not list(uninterrupted.parent.glob("*.work.jsonl"))
    first = next(iter(aligned))
    (expected,) = align_each([cut_utterance(cuts[first.id])], default_lexicon(), PocketSphinxEngine())
    assert phone_intervals(first) == expected.intervals
    assert first.supervisions[0].text == cuts[first.id].supervisions[0].text
    assert cuts[first.id].supervisions[0].alignment is None


def test_a_killed_run_is_resumed_and_writes_the_same_files(corpus, uninterrupted, tmp_path, capsys):
    output = tmp_path / "killed.jsonl.gz"
    command = ["align", "--cuts", str(corpus), "--output", str(output), "--num-jobs"]
    run = subprocess.Popen([sys.executable, "-m", "speechattn", *command, "2"], stderr=subprocess.PIPE)
    work_file = tmp_path / "killed.jsonl.gz.work.jsonl"
    while run.poll() is None and (not work_file.is_file() or work_file.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    workers = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    assert workers and not psutil.wait_procs(workers, timeout=60)[1]  # nobody is left waiting
    assert not output.exists() and not (tmp_path / "killed.jsonl.gz.rejected.tsv").exists()
    num_done = work_file.read_bytes().count(b"\n")
    assert 3 <= num_done < 10
    work_file.write_bytes(work_file.read_bytes() + b'["torn')

    capsys.readouterr()
    main([*command, "1"])
    assert f"{num_done} of 10 utterances were aligned before" in capsys.readouterr().err
    for suffix in SUFFIXES:
        assert Path(f"{output}{suffix}").read_bytes() == Path(f"{uninterrupted}{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{output.name}{suffix}" for suffix in SUFFIXES)


def test_the_given_lexicon_comes_first(corpus, tmp_path, capsys):
    cuts = [cut for cut in read_cuts(corpus) if cut.id.endswith("sa1")][:1]
    words = {word.strip(".,?!").lower() for word in cuts[0].supervisions[0].text.split()}
    cuts[0].supervisions[0].text += " blorp"
    save_cuts(tmp_path / "cuts.jsonl.gz", cuts)
    (tmp_path / "lexicon.txt").write_text("she SH IY1\nhad HH AE1 D\nhad HH AH0 D\n")
    output = tmp_path / "out.jsonl.gz"
    arguments = ["--cuts", str(tmp_path / "cuts.jsonl.gz"), "--output", str(output), "--num-jobs", "1"]
    main(["align", *arguments, "--lexicon", str(tmp_path / "lexicon.txt")])
    rows = [line.split("\t") for line in Path(f"{output}.words.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == sorted(words - {"she", "had"} | {"blorp"})
    sources = {row[0]: row[1:] for row in rows}
    assert sources["suit"] == ["cmudict", "S UW T", "1"]
    assert sources["blorp"] in (["espeak", "B L AO R P", "1"], ["unknown", "", "1"])
    assert "words that are not in the first lexicon: 9 cmudict, 1 " in capsys.readouterr().out


def test_cuts_that_cannot_be_aligned_are_refused_by_name(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)

    arguments = ["--cuts", tmp_path / "cuts.jsonl.gz", "--output", tmp_path / "out.jsonl.gz", "--num-jobs", "1"]

    def refusal(cut):
        save_cuts(tmp_path / "cuts.jsonl.gz", [cut])
        return refused(capsys, "align", *arguments)

    cut = utterance_cut("a", tmp_path / "a.wav", speaker="s", text="yes")
    assert "cut a: a whole recording is needed" in refusal(cut.truncate(duration=0.5, preserve_id=True))
    silent = utterance_cut("a", tmp_path / "a.wav", speaker="s", text="")
    assert "cut a: alignment needs one supervision with a text" in refusal(silent)
    odd = utterance_cut("a", tmp_path / "a.wav", speaker="s", text="42")
    assert "none of the 1 utterances could be aligned; not in the lexicon: 42" in refusal(odd)
    assert (tmp_path / "out.jsonl.gz.rejected.tsv").read_text() == "a\tnot in the lexicon: 42\n"
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        "out.jsonl.gz.rejected.tsv",
        "out.jsonl.gz.words.tsv",
    ]
