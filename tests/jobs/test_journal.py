"""A journal gives back every record that was written whole, whatever happened to the last one."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from speechattn.jobs.journal import Journal

RECORDS = {"a": [1, "ɪ̃"], "b": {"x": None}, "c": "line\nbreak"}


def written(path):
    with closing(Journal(path)) as journal:
        for key, record in RECORDS.items():
            journal.add(key, record)
    return path.read_bytes()


def records(path):
    with closing(Journal(path)) as journal:
        return {key: journal[key] for key in "abcd" if key in journal}


def test_records_come_back_and_the_last_one_of_a_key_counts(tmp_path):
    path = tmp_path / "new" / "work.jsonl"
    written(path)
    assert records(path) == RECORDS
    with closing(Journal(path)) as journal:
        journal.add("a", 2)
        assert journal["a"] == 2
    assert records(path) == RECORDS | {"a": 2}


def test_a_file_torn_at_any_byte_loses_at_most_the_torn_record(tmp_path):
    path = tmp_path / "work.jsonl"
    content = written(path)
    ends = [0, *(number + 1 for number, byte in enumerate(content) if byte == ord("\n"))]
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        with closing(Journal(path)) as journal:
            # A whole record whose line break alone is missing is whole.
            num_whole = sum(end <= length or end == length + 1 for end in ends[1:])
            journal.add("d", length)
        assert records(path) == dict(list(RECORDS.items())[:num_whole]) | {"d": length}


def test_two_at_once_lose_nothing(tmp_path):
    path = tmp_path / "work.jsonl"
    with closing(Journal(path)) as one, closing(Journal(path)) as other:
        one.add("a", 1)
        other.add("b", 2)
        one.add("c", 3)
    assert records(path) == {"a": 1, "b": 2, "c": 3}


def test_what_is_not_ours_is_passed_over(tmp_path):
    path = tmp_path / "work.jsonl"
    path.write_text('nonsense\n{"a": 1}\n[1]\n[["b"], 2]\n\n' + json.dumps(["c", 3]) + "\n")
    assert records(path) == {"c": 3}


def test_a_full_disk_is_an_error(monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda self: False)  # it reads as zeros without end
    with closing(Journal(Path("/dev/full"))) as journal:
        with pytest.raises(OSError, match="space"):
            journal.add("a", 1)
        assert "a" not in journal
