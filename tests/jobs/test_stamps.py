"""Atomic files and stamps: a job runs again exactly when something changed."""

import hashlib
from pathlib import Path

import pytest

from speechattn.jobs.atomic import atomic_path
from speechattn.jobs.stamps import checksum, fingerprint, is_done, mark_done


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists() and temporary.suffix == ".txt" and temporary.parent.parent == target.parent
    assert target.read_text() == "whole" and names(target.parent) == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="half-way"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("half-way")
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("letter", ["a", "é", "語"])
def test_any_name_that_a_file_may_have(tmp_path: Path, letter: str) -> None:
    target = tmp_path / (letter * (251 // len(letter.encode())) + ".txt")
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "stale").write_text("")
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "fresh").write_text("")
    assert names(target) == ["fresh"] and names(tmp_path) == ["folder"]


def test_checksum_equals_hashlib_over_blocks(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than two blocks
    (tmp_path / "a").write_bytes(data)
    assert checksum(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert checksum(tmp_path / "a", "md5") == hashlib.md5(data).hexdigest()


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, dict, Path, Path]:
    source, output, stamp = (tmp_path / name for name in ("in.txt", "out/result.txt", "out/job.json"))
    source.write_text("input")
    output.parent.mkdir()
    output.write_text("output")
    options = {"left": 8, "splits": ("a", "b"), "seed": None}
    mark_done(stamp, options, {"source": source}, [output])
    return stamp, options, source, output


def test_an_untouched_job_is_done(job: tuple[Path, dict, Path, Path]) -> None:
    stamp, options, source, _ = job
    assert is_done(stamp, options, {"source": source})


def test_outputs_can_be_moved(job: tuple[Path, dict, Path, Path]) -> None:
    stamp, options, source, _ = job
    moved = stamp.parent.rename(stamp.parent.with_name("elsewhere")) / stamp.name
    assert is_done(moved, options, {"source": source}) and not is_done(stamp, options, {"source": source})


@pytest.mark.parametrize(
    "change",
    [
        *("option", "new option", "input", "no input", "more inputs", "output", "no output"),
        *("broken stamp", "no stamp", "not a stamp"),
    ],
)
def test_any_change_makes_the_job_run_again(job: tuple[Path, dict, Path, Path], change: str) -> None:
    stamp, options, source, output = job
    inputs = {"source": source}
    if change == "option":
        options = options | {"left": 9}
    elif change == "new option":
        options = options | {"right": 8}
    elif change == "input":
        source.write_text("other")
    elif change == "no input":
        source.unlink()
    elif change == "more inputs":
        inputs["more"] = output
    elif change == "output":
        output.write_text("outp")
    elif change == "no output":
        output.unlink()
    elif change == "broken stamp":
        stamp.write_bytes(stamp.read_bytes()[:-20])
    elif change == "no stamp":
        stamp.unlink()
    else:
        stamp.write_text("[]")
    assert not is_done(stamp, options, inputs)


def test_inputs_may_move_but_not_change_places(job: tuple[Path, dict, Path, Path], tmp_path: Path) -> None:
    stamp, options, source, _ = job
    moved = source.rename(tmp_path / "moved.txt")
    assert is_done(stamp, options, {"source": moved})
    assert not is_done(stamp, options, {"other": moved})


def test_a_fingerprint_sees_files_come_go_and_change(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    seen = [fingerprint(tmp_path)]
    (tmp_path / "a/y").write_text("1")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "a/y").write_text("22")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "a/y").unlink()
    assert fingerprint(tmp_path) == seen[0] and len(set(seen)) == 3
