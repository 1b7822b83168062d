"""LibriSpeech: three sources of labels, its splits, and what is refused or left out."""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_librispeech import CHAPTER, MadeCorpus
from prepared import read_splits

from speechattn.corpora import librispeech as module
from speechattn.corpora import prepare_corpus
from speechattn.corpora.librispeech import LibriSpeechOptions, download_librispeech, prepare_librispeech
from speechattn.corpora.librispeech_archives import CPC_TEST_LIST, CPC_TRAIN_LIST, SUBSETS
from speechattn.corpora.librispeech_labels import (
    cpc_split,
    read_utterance_list,
)
from speechattn.cuts.files import SPLITS, phone_intervals, save_splits, speaker_in_train
from speechattn.cuts.splits import draw_by_utterances
from speechattn.jobs.stamps import checksum
from speechattn.labels.files import read_textgrid, write_textgrid
from speechattn.labels.frames import frame_labels
from speechattn.labels.intervals import Interval
from speechattn.phones import PhoneSet


def speakers(cuts: list) -> set[str]:
    return {cut.supervisions[0].speaker for cut in cuts}


@pytest.fixture(scope="session")
def fetched(librispeech: MadeCorpus, tmp_path_factory) -> Path:
    """The corpus with all labels, as it lies after downloading."""
    folder = tmp_path_factory.mktemp("fetched")
    for labels in ("mfa", "cpc"):
        download_librispeech(folder, str(librispeech.mirror), options=LibriSpeechOptions(labels=labels))
    return folder


@pytest.fixture
def corpus(fetched: Path, tmp_path) -> Path:
    """The same for a test alone, to be damaged."""
    shutil.copytree(fetched, tmp_path / "corpus")
    return tmp_path / "corpus"


def chapter(corpus: Path, subset: str, speaker: str) -> Path:
    return corpus / "LibriSpeech" / subset / speaker / CHAPTER


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsets": "train-clean"}, "subsets: no 'train-clean' in LibriSpeech; there are train-clean-100, "),
        ({"labels": "mfcc"}, "labels must be one of mfa, cpc, align, got 'mfcc'"),
        ({"spn": "drop"}, "spn must be one of ignore, keep, got 'drop'"),
        ({"split": "random"}, "split must be one of published, speaker, got 'random'"),
        ({"labels": "cpc", "subsets": "dev-clean"}, "labels=cpc exist for train-clean-100 only, got subsets dev-clean"),
        ({"split": "speaker"}, "split=speaker is for labels=cpc"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        LibriSpeechOptions(**options)


def test_subsets_by_commas_or_as_a_list():
    assert LibriSpeechOptions(subsets="dev-clean, test-clean,dev-clean").subsets == ["dev-clean", "test-clean"]
    assert LibriSpeechOptions(subsets=["dev-clean"]).subsets == ["dev-clean"]
    assert LibriSpeechOptions(labels="cpc").subsets == ["train-clean-100"]
    assert LibriSpeechOptions(labels="align").subsets == ["train-clean-100", "dev-clean", "test-clean"]


def test_the_catalogue_has_all_subsets_of_both_resources():
    assert len(SUBSETS) == 9
    assert len({subset.archive.md5 for subset in SUBSETS.values()}) == 9
    for name, (archive, num_utterances) in SUBSETS.items():
        number = 31 if name in ("train-clean-5", "dev-clean-2") else 12
        assert archive.mirror_path == f"openslr/{number}/{name}.tar.gz"
        assert archive.urls[0] == f"https://www.openslr.org/resources/{number}/{name}.tar.gz" and len(archive.urls) > 1
        assert re.fullmatch("[0-9a-f]{32}", archive.md5) and archive.size > 10**8 and num_utterances > 1000


# TextGrids


def test_textgrids_become_the_phones_that_were_spoken(librispeech, fetched, tmp_path):
    prepare_librispeech(fetched, tmp_path / "out")
    splits = read_splits(tmp_path / "out")
    assert {name: len(cuts) for name, cuts in splits.items()} == {"train": 12, "dev": 4, "test": 4}
    made = {utterance.id: utterance for utterance in librispeech.utterances}
    for name, cuts in splits.items():
        for cut in cuts:
            utterance = made[cut.id]
            assert utterance.subset.startswith(name)
            assert (cut.supervisions[0].speaker, cut.supervisions[0].text) == (utterance.speaker, utterance.text)
            ids = PhoneSet.load("arpabet41").ids(interval.symbol for interval in utterance.intervals)
            expected = frame_labels(utterance.intervals, utterance.num_samples, ids)
            assert np.array_equal(frame_labels(phone_intervals(cut), cut.num_samples, ids), expected)
    assert (tmp_path / "out/rejected.tsv").read_text() == ""


# CPC labels


def test_cpc_labels_of_the_prepared_corpus_are_the_file_s(librispeech, fetched, tmp_path, capsys):
    prepare_librispeech(fetched, tmp_path / "out", options=LibriSpeechOptions(labels="cpc"))
    rows = {}
    for line in (fetched / "converted_aligned_phones.txt").read_text().splitlines():
        name, *classes = line.split()
        rows[name] = [int(value) for value in classes]
    splits = read_splits(tmp_path / "out")
    ids = {str(number): number for number in range(41)}
    for cut in (cut for cuts in splits.values() for cut in cuts):
        assert frame_labels(phone_intervals(cut), cut.num_samples, ids).tolist() == rows.pop(cut.id)
    assert not rows
    output = capsys.readouterr().out
    assert "test: 3 of its 3 speakers are also in train" in output
    assert output.count("https://www.openslr.org/12") == 1
    assert [len(splits[name]) for name in SPLITS] == [8, 1, 3]
    assert all(map(speaker_in_train, splits["dev"] + splits["test"]))
    assert not any(map(speaker_in_train, splits["train"]))


def test_the_same_utterances_split_by_speaker(fetched, tmp_path, capsys):
    options = LibriSpeechOptions(labels="cpc", split="speaker")
    prepare_librispeech(fetched, tmp_path / "out", options=options)
    assert "also in train" not in capsys.readouterr().out
    splits = read_splits(tmp_path / "out")
    assert [len(speakers(splits[name])) for name in SPLITS] == [1, 1, 1]
    assert len(set.union(*(speakers(cuts) for cuts in splits.values()))) == 3
    assert sum(map(len, splits.values())) == 12
    assert not any(speaker_in_train(cut) for cuts in splits.values() for cut in cuts)


def test_a_split_by_speaker_that_shares_one_would_be_refused(fetched, tmp_path, monkeypatch):
    published = module._cpc_splits
    monkeypatch.setattr(
        module, "_cpc_splits", lambda utterances, rule, folder: published(utterances, "published", folder)
    )
    with pytest.raises(ValueError, match=r"speaker \d+ is in two splits"):
        prepare_librispeech(fetched, tmp_path / "out", options=LibriSpeechOptions(labels="cpc", split="speaker"))


def test_shared_speakers_are_refused_unless_asked_for(fetched, tmp_path):
    prepare_librispeech(fetched, tmp_path / "out", options=LibriSpeechOptions(labels="cpc"))
    with pytest.raises(ValueError, match=r"speaker \d+ is in two splits: train and dev"):
        save_splits(tmp_path / "other", read_splits(tmp_path / "out"))
    splits = {name: cuts[:1] for name, cuts in read_splits(tmp_path / "out").items()}
    with pytest.raises(ValueError, match=r"utterance .* is in two splits"):
        save_splits(tmp_path / "other", splits | {"dev": splits["train"]}, shared_speakers=True)


def test_only_speakers_that_train_are_marked(fetched, tmp_path):
    prepare_librispeech(fetched, tmp_path / "out")
    splits = read_splits(tmp_path / "out")
    splits["test"].append(splits["train"].pop())
    save_splits(tmp_path / "shared", splits, shared_speakers=True)
    assert [speaker_in_train(cut) for cut in read_splits(tmp_path / "shared")["test"]] == [False] * 4 + [True]


def test_dev_is_cut_off_the_train_list_as_s3prl_does():
    lines = [f"{number}-1-2\n" for number in range(57)]
    usage_list = list(lines)
    random.seed(1337)
    random.shuffle(usage_list)
    percent = int(len(usage_list) * 0.9)
    split_of = cpc_split([line.strip() for line in lines], ["1000-1-1"])
    assert {name for name, split in split_of.items() if split == "train"} == {x.strip() for x in usage_list[:percent]}
    assert {name for name, split in split_of.items() if split == "dev"} == {x.strip() for x in usage_list[percent:]}
    assert split_of["1000-1-1"] == "test"
    with pytest.raises(ValueError, match="utterance 3-1-2 is in the train list and in the test list"):
        cpc_split(["3-1-2"], ["3-1-2"])


def test_the_published_lists(mirror):
    paths = [mirror / file.mirror_path for file in (CPC_TRAIN_LIST, CPC_TEST_LIST)]
    if not all(path.is_file() for path in paths):
        pytest.skip("SPEECHATTN_MIRROR holds no CPC split")
    assert [checksum(path, "md5") for path in paths] == [CPC_TRAIN_LIST.md5, CPC_TEST_LIST.md5]
    train_list, test_list = map(read_utterance_list, paths)
    split_of = cpc_split(train_list, test_list)
    assert Counter(split_of.values()) == {"train": 20547, "dev": 2283, "test": 5708}
    by_split = {split: {name.split("-")[0] for name in split_of if split_of[name] == split} for split in SPLITS}
    assert len(by_split["train"] | by_split["test"]) == len(by_split["test"]) == 251  # nobody is new in test

    spoken = [name.split("-")[0] for name in split_of]
    drawn = draw_by_utterances(spoken, module.SPEAKER_SHARES, module.SEED)
    assert drawn == draw_by_utterances(sorted(spoken), module.SPEAKER_SHARES, module.SEED)
    utterances = Counter(drawn.get(speaker, "train") for speaker in spoken)
    for split, number in (("train", 20547), ("dev", 2283), ("test", 5708)):
        assert abs(utterances[split] - number) < 100


def test_a_list_has_no_utterance_twice(tmp_path):
    (tmp_path / "a.txt").write_text("1-2-3\n1-2-4\n1-2-3")
    with pytest.raises(ValueError, match="a.txt: utterance 1-2-3 occurs twice"):
        read_utterance_list(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("converted_aligned_phones.txt", lambda text: text.replace("\n", " 7\n", 1), r"utterance \S+: \d+ labels for"),
        (
            "converted_aligned_phones.txt",
            lambda text: text[text.index("\n") + 1 :],
            r"utterance \S+: has no CPC labels",
        ),
        ("converted_aligned_phones.txt", None, r"converted_aligned_phones.txt: is missing; add --download"),
        ("train_split.txt", lambda text: text + "\n1-2-3", r"1 utterances of the CPC split are not in train-clean-100"),
    ],
    ids=["too-many", "no-line", "no-file", "no-audio"],
)
def test_the_published_split_is_prepared_whole_or_not_at_all(corpus, tmp_path, file, change, message):
    path = corpus / file
    text = path.read_text()
    path.unlink()
    if change:
        path.write_text(change(text))
    with pytest.raises(ValueError, match=message):
        prepare_librispeech(corpus, tmp_path / "out", options=LibriSpeechOptions(labels="cpc"))
    assert not (tmp_path / "out").exists()


def test_utterances_in_no_list_are_listed(corpus, tmp_path):
    path = corpus / "train_split.txt"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(rest)
    prepare_librispeech(corpus, tmp_path / "out", options=LibriSpeechOptions(labels="cpc"))
    assert (tmp_path / "out/rejected.tsv").read_text() == f"{first}\ttrain-clean-100\tin neither list of the split\n"


# Forced alignment


def test_alignment_here_lists_what_it_cannot_do(corpus, tmp_path):
    for subset, speaker in (("train-clean-100", "103"), ("train-clean-100", "1034")):  # one utterance is enough
        shutil.rmtree(chapter(corpus, subset, speaker).parent)
    for subset, speaker, count in (("train-clean-100", "19", 2), ("dev-clean", "84", 1), ("test-clean", "61", 1)):
        folder = chapter(corpus, subset, speaker)
        table = folder / f"{speaker}-{CHAPTER}.trans.txt"
        lines = table.read_text().splitlines()
        for line in lines[count:]:
            (folder / f"{line.split()[0]}.flac").unlink()
        table.write_text("".join(f"{line}\n" for line in lines[:count]).replace("THIRTY TEETH", "30 TEETH"))
    prepare_librispeech(corpus, tmp_path / "out", options=LibriSpeechOptions(labels="align"))
    splits = read_splits(tmp_path / "out")
    assert [len(splits[name]) for name in SPLITS] == [1, 1, 1]
    rejected = (tmp_path / "out/rejected.tsv").read_text()
    assert rejected.startswith(f"19-{CHAPTER}-0000\ttrain\t") and "30" in rejected.split("\t")[2]
    symbols = set(PhoneSet.load("arpabet41").symbols)
    for cut in (cuts[0] for cuts in splits.values()):
        intervals = phone_intervals(cut)
        assert {interval.symbol for interval in intervals} <= symbols and len(intervals) > 10
        assert intervals[-1].end == cut.num_samples
    assert not list((tmp_path / "out").glob("*.work.jsonl"))


# The corpus itself


def test_mini_has_no_test_set_so_that_dev_is_split_by_speaker(librispeech, tmp_path, capsys):
    options = LibriSpeechOptions(subsets="train-clean-5,dev-clean-2")
    download_librispeech(tmp_path / "corpus", str(librispeech.mirror), options=options)
    prepare_librispeech(tmp_path / "corpus", tmp_path / "out", options=options)
    splits = read_splits(tmp_path / "out")
    assert [len(splits[name]) for name in SPLITS] == [12, 4, 4]
    assert speakers(splits["dev"]) | speakers(splits["test"]) == {"84", "61"}
    assert "the dev speakers are split into dev and test" in capsys.readouterr().out


def test_half_of_dev_is_test_where_there_is_none(tmp_path):
    subset_of = {f"{speaker}-1-{number}": "dev-clean-2" for speaker in range(20) for number in range(5)}
    options = LibriSpeechOptions(subsets="train-clean-5,dev-clean-2")
    assert Counter(module._splits(subset_of, options, tmp_path).values()) == {"dev": 50, "test": 50}


def test_without_a_dev_subset_four_speakers_of_train_clean_5_are_dev(tmp_path):
    """And of nothing else: a larger subset has other speakers than they."""
    names = [f"{speaker}-1-{number}" for speaker in (460, 1088, 4680, 7312, 19, 32) for number in range(3)]
    mini = dict.fromkeys(names, "train-clean-5")
    subset_of = mini | {"61-1-0": "test-clean"}
    options = LibriSpeechOptions(subsets="train-clean-5,test-clean", labels="align")
    split_of = module._splits(subset_of, options, tmp_path)
    assert Counter(split_of.values()) == {"dev": 12, "train": 6, "test": 1}
    assert {name.split("-")[0] for name, split in split_of.items() if split == "train"} == {"19", "32"}
    with_dev = subset_of | {"84-1-0": "dev-clean"}
    assert Counter(module._splits(with_dev, options, tmp_path).values()) == {"train": 18, "dev": 1, "test": 1}
    larger = dict.fromkeys(mini, "train-clean-100")
    with pytest.raises(ValueError, match="leave dev empty; add dev-clean"):
        module._splits(larger, options, tmp_path)


def test_a_subset_and_its_part_are_not_taken_together(librispeech, tmp_path):
    options = LibriSpeechOptions(subsets="train-clean-5,train-clean-100,dev-clean,test-clean", labels="align")
    download_librispeech(tmp_path / "corpus", str(librispeech.mirror), options=options)
    with pytest.raises(ValueError, match="have utterances in common"):
        prepare_librispeech(tmp_path / "corpus", tmp_path / "out", options=options)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (f"84-{CHAPTER}-0001.flac", None, rf"84-{CHAPTER}-0001.flac: is missing"),
        (f"84-{CHAPTER}.trans.txt", lambda b: b[b.index(b"\n") + 1 :], rf"no line for utterance 84-{CHAPTER}-0000"),
        (f"84-{CHAPTER}.trans.txt", lambda b: b + b"84-5\n", r"trans.txt:5: expected an utterance and its words"),
        (f"84-{CHAPTER}.trans.txt", lambda b: b + b.split(b"\n")[0], r"transcribed twice"),
        (f"84-{CHAPTER}-0001.flac", lambda b: b"junk", rf"84-{CHAPTER}-0001.flac"),
    ],
    ids=["no-audio", "no-line", "bad-line", "twice", "junk"],
)
def test_a_damaged_corpus_is_refused_by_name(corpus, tmp_path, file, change, message):
    path = chapter(corpus, "dev-clean", "84") / file
    content = path.read_bytes()
    path.unlink()
    if change:
        path.write_bytes(change(content))
    with pytest.raises(ValueError, match=message):
        prepare_librispeech(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_named(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"train-other-500.tar.gz"):
        prepare_librispeech(corpus, tmp_path / "out", options=LibriSpeechOptions(subsets="train-other-500"))
    shutil.rmtree(corpus / "librispeech_alignments")
    (corpus / "librispeech_alignments.zip").unlink()
    with pytest.raises(ValueError, match=r"librispeech_alignments.zip"):
        prepare_librispeech(corpus, tmp_path / "out")


def test_other_options_prepare_again(corpus, tmp_path, capsys):
    for spn, times in (("ignore", 0), ("ignore", 1), ("keep", 0)):
        prepare_corpus("librispeech", tmp_path / "out", corpus_dir=corpus, options=LibriSpeechOptions(spn=spn))
        assert capsys.readouterr().out.count("prepared already") == times
    assert json.loads((tmp_path / "out/prepare.done.json").read_text())["options"]["options"]["spn"] == "keep"


@pytest.mark.slow
def test_processes_change_nothing(fetched, tmp_path, monkeypatch):
    prepare_librispeech(fetched, tmp_path / "one")
    monkeypatch.setattr(module, "UTTERANCES_PER_PROCESS", 1)
    prepare_librispeech(fetched, tmp_path / "two", num_jobs=2)
    for name in SPLITS:
        assert (tmp_path / f"one/{name}.jsonl.gz").read_bytes() == (tmp_path / f"two/{name}.jsonl.gz").read_bytes()


def test_speech_without_a_pronunciation_is_ignored_or_kept(corpus, tmp_path):
    name = f"61-{CHAPTER}-0000"
    path = corpus / "librispeech_alignments/test-clean/61" / CHAPTER / f"{name}.TextGrid"
    phones = read_textgrid(path)
    spoken = next(number for number, segment in enumerate(phones) if segment.phone == "T")
    write_textgrid(path, [*phones[:spoken], phones[spoken]._replace(phone="spn"), *phones[spoken + 1 :]])
    found = {}
    for spn in ("ignore", "keep"):
        prepare_librispeech(corpus, tmp_path / spn, options=LibriSpeechOptions(spn=spn))
        cut = next(cut for cut in read_splits(tmp_path / spn)["test"] if cut.id == name)
        found[spn] = phone_intervals(cut)
    start, end = (round(time * 16000) + 120 for time in phones[spoken][1:3])
    assert set(found["keep"]) - set(found["ignore"]) == {Interval(start, end, "SPN")}
    assert set(found["ignore"]) < set(found["keep"])


def test_utterances_without_a_sound_textgrid_are_listed(corpus, tmp_path):
    folder = corpus / "librispeech_alignments/train-clean-100/19" / CHAPTER
    paths = [folder / f"19-{CHAPTER}-000{number}.TextGrid" for number in range(4)]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:500])
    shutil.copy(paths[3], paths[2])  # of another utterance
    write_textgrid(paths[3], [read_textgrid(paths[3])[0]._replace(phone="XX"), *read_textgrid(paths[3])[1:]])
    prepare_librispeech(corpus, tmp_path / "out")
    rows = [line.split("\t") for line in (tmp_path / "out/rejected.tsv").read_text().splitlines()]
    assert [row[:2] for row in rows] == [[f"19-{CHAPTER}-000{number}", "train"] for number in range(4)]
    for row, reason in zip(
        rows, ("has no TextGrid", "0001.TextGrid", "0002.TextGrid: ends at", "phone 'XX'"), strict=True
    ):
        assert reason in row[2]
    assert len(read_splits(tmp_path / "out")["train"]) == 8
