"""Checkpoints: restored bit by bit, skipped when damaged, never lost to a failed write, and never code."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from speechattn.training.checkpoint import Checkpoints

RUN = {"options": {"seed": 1, "optim": {"epochs": 3}}, "inputs": {"train": "abc"}}


def checkpoints(folder: Path, run: dict = RUN, **options) -> Checkpoints:
    return Checkpoints(folder, run, **{"every_s": 600.0, "enabled": True, **options})


def state(number: int) -> dict:
    return {
        "weights": {"a": torch.full((50,), float(number)), "b": torch.arange(3)},
        "rows": [{"epoch": number, "loss": 0.1 + number}],
        "best": None,
        "optimizer": {"state": {0: {"step": torch.tensor(number)}}, "param_groups": [{"betas": (0.9, 0.999)}]},
    }


def number_of(found: dict | None) -> int | None:
    return None if found is None else found["rows"][0]["epoch"]


def test_the_newest_checkpoint_is_restored_and_two_are_kept(tmp_path: Path) -> None:
    assert checkpoints(tmp_path / "nothing").newest() is None
    saved = checkpoints(tmp_path)
    for number, place in enumerate([(0, 5), (0, 90), (0, 100), (1, 2)]):
        saved.save(*place, state(number))
    assert len(list(tmp_path.iterdir())) == 2
    found = checkpoints(tmp_path).newest()
    expected = state(3)
    assert torch.equal(found["weights"]["a"], expected["weights"]["a"])
    assert found["weights"]["b"].dtype == torch.int64
    assert {**found, "weights": 0, "optimizer": 0} == {**expected, "weights": 0, "optimizer": 0}
    assert found["optimizer"]["param_groups"] == [{"betas": (0.9, 0.999)}]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied"])
def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, damage: str, caplog) -> None:
    saved = checkpoints(tmp_path)
    saved.save(0, 1, state(1))
    saved.save(0, 2, state(2))
    older, newer = sorted(tmp_path.iterdir())

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"truncated": content[:-1], "flipped": content, "emptied": b""}[damage])

    spoil(newer)
    again = checkpoints(tmp_path)
    assert number_of(again.newest()) == 1
    assert f"{newer} is damaged" in caplog.text
    again.save(0, 2, state(3))  # in its place; the damaged one is not one of the two kept
    assert number_of(checkpoints(tmp_path).newest()) == 3
    assert len(list(tmp_path.iterdir())) == 2 and older in tmp_path.iterdir()
    for path in tmp_path.iterdir():
        spoil(path)
    assert checkpoints(tmp_path).newest() is None
    assert "no usable checkpoint: starting over" in caplog.text


def test_a_checkpoint_of_another_run_is_not_loaded(tmp_path: Path, caplog) -> None:
    checkpoints(tmp_path).save(0, 1, state(1))
    other = {"options": {"seed": 1, "optim": {"epochs": 4, "clip": 1}}, "inputs": {"train": "abd"}}
    assert checkpoints(tmp_path, other).newest() is None
    assert "belongs to a run with other settings (optim.epochs, inputs.train, optim.clip)" in caplog.text


def test_a_failed_write_keeps_the_earlier_checkpoints(tmp_path: Path, monkeypatch, caplog) -> None:
    saved = checkpoints(tmp_path)
    saved.save(0, 1, state(1))
    saved.save(0, 2, state(2))
    before = sorted(tmp_path.iterdir())

    def fill(path: Path, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    saved.save(0, 3, state(3))
    [record] = caplog.records
    assert "could not be saved" in record.getMessage() and "No space left on device" in record.getMessage()
    assert sorted(tmp_path.iterdir()) == before
    assert number_of(checkpoints(tmp_path).newest()) == 2
    monkeypatch.undo()
    (tmp_path / ".state-00000-00000009-x").mkdir()  # as a process leaves it that is killed as it writes
    saved.save(0, 4, state(4))
    assert number_of(checkpoints(tmp_path).newest()) == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_a_process_that_may_not_write_only_reads(tmp_path: Path, caplog) -> None:
    checkpoints(tmp_path).save(0, 1, state(1))
    other = checkpoints(tmp_path, {"options": {}}, enabled=False)
    other.save(0, 2, state(2))
    assert other.newest() is None and not other.due and not caplog.records
    assert len(list(tmp_path.iterdir())) == 1


class Code:
    """Pickled, it asks to have a function called when it is read."""

    def __reduce__(self):
        return Path.touch, (Path("called"),)


def test_no_code_is_run(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"run": RUN, "state": Code()}, "made.pt")
    digest = hashlib.sha256(Path("made.pt").read_bytes()).hexdigest()
    Path("made.pt").rename(f"state-00000-00000001-{digest[:16]}.pt")
    assert checkpoints(tmp_path).newest() is None
    assert not Path("called").exists() and "skipped" in caplog.text
    pickle.loads(pickle.dumps(Code()))
    assert Path("called").exists()  # the trap works


def test_it_is_time_to_save_when_the_seconds_are_over(tmp_path: Path, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    saved = checkpoints(tmp_path, every_s=60.0)
    assert not saved.due
    now[0] += 60
    assert saved.due
    saved.save(0, 1, state(1))
    assert not saved.due
    assert checkpoints(tmp_path, every_s=0.0).due
