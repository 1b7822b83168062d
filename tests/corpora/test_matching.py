"""An alignment goes to its own recording, or to none: never quietly to another speaker's."""

from pathlib import Path

import pytest

from speechattn.corpora.matching import AlignmentSource, UnlabelledUtterance, find_alignments, match
from speechattn.jobs.folders import visible_files
from speechattn.labels.intervals import Segment


def utterances(*paths):
    return [UnlabelledUtterance(path.replace("/", "-"), Path(f"audio/{path}.wav"), "s", path) for path in paths]


def grids(*paths):
    return [AlignmentSource(Path(f"grids/{path}.TextGrid"), path) for path in paths]


def pairs(matched):
    return {name: alignment.path or alignment.utterance for name, alignment in matched.items()}


def ctm(*utterances):
    path = utterances[0] if len(utterances) == 1 else None
    return [AlignmentSource(Path("all.ctm"), path, name, [Segment("a", 0.0, 1.0)]) for name in utterances]


def test_by_path():
    matched, left = match(utterances("a/u1", "b/u1", "b/u2"), grids("b/u1", "a/u1", "c/u2"))
    assert pairs(matched) == {"a-u1": "a/u1", "b-u1": "b/u1"}
    assert left == grids("c/u2")  # b/u2 must not get it


def test_by_name_where_the_folders_differ():
    matched, left = match(utterances("a/wav/u1", "b/wav/u2"), grids("a/u1", "u2", "u3"))
    assert pairs(matched) == {"a-wav-u1": "a/u1", "b-wav-u2": "u2"} and left == grids("u3")


def test_utterances_of_a_ctm_by_path_id_and_name():
    assert pairs(match(utterances("a/u1", "u2", "c/u3"), ctm("a/u1", "u2", "c-u3"))[0]) == {
        "a-u1": "a/u1", "u2": "u2", "c-u3": "c-u3",
    }  # fmt: skip
    assert pairs(match(utterances("a/u1", "b/u2"), ctm("u1", "u2"))[0]) == {"a-u1": "u1", "b-u2": "u2"}


def test_a_ctm_of_one_utterance_also_goes_by_its_file_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/u1.ctm").write_text("whatever 1 0.0 0.5 x\n")
    (tmp_path / "a/all.CTM").write_text("u2 1 0.0 0.5 x\nu3 1 0.0 0.5 x\n")
    alignments = find_alignments(tmp_path, None)
    assert [(a.path, a.utterance) for a in alignments] == [(None, "u2"), (None, "u3"), ("a/u1", "whatever")]
    assert pairs(match(utterances("a/u1", "u2"), alignments)[0]) == {"a-u1": "a/u1", "u2": "u2"}


def test_ambiguity_is_refused_by_name():
    both = [*grids("a/u1"), AlignmentSource(Path("grids/a/u1.phn"), "a/u1")]
    with pytest.raises(ValueError, match=r"utterance a-u1: grids/a/u1.TextGrid and grids/a/u1.phn both fit .*--format"):
        match(utterances("a/u1"), both)
    with pytest.raises(ValueError, match=r"utterance a-u1: grids/x/u1.TextGrid and grids/y/u1.TextGrid both fit"):
        match(utterances("a/u1"), grids("x/u1", "y/u1"))
    with pytest.raises(ValueError, match=r"grids/x/u1.TextGrid fits both audio/a/u1.wav and audio/b/u1.wav"):
        match(utterances("a/u1", "b/u1"), grids("x/u1"))
    with pytest.raises(ValueError, match=r"u1 in all.ctm fits both audio/a/u1.wav and audio/b/u1.wav"):
        match(utterances("a/u1", "b/u1"), ctm("u1", "u2"))


def test_only_files_of_the_kind_asked_for_and_none_that_is_hidden(tmp_path):
    for name in ("a.phn", "a.txt", "._a.phn", ".git/b.phn", "c/b.PHN", "d.phn.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [a.path for a in find_alignments(tmp_path, "phn")] == ["a", "c/b"]
    assert [a.path for a in find_alignments(tmp_path, None)] == ["a", "a", "c/b"]
    assert [path.name for path in visible_files(tmp_path, [".txt"])] == ["a.txt"]
    with pytest.raises(ValueError, match="holds no alignments; files that end in .lab are looked for"):
        find_alignments(tmp_path, "lab")
