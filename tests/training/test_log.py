"""The log of a run: rows survive an interruption, waiting for data is timed, and malformed logs are refused."""

from pathlib import Path

import pytest

from speechattn.training.log import EpochLog, read_log
from speechattn.training.progress import RunState, Tally, timed


def test_waiting_is_timed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def slow():
        for number in range(3):
            now[0] += 2
            yield number
        now[0] += 0.5

    waits, seen = [], []
    for number in timed(slow(), waits):
        now[0] += 10
        seen.append(number)
    assert seen == [0, 1, 2] and sum(waits) == 6.5


def test_a_tally_adds_up() -> None:
    tally = Tally()
    assert tally.mean_loss == 0 and tally.throughput() == {"frames_per_s": 0, "data_wait": 0}
    tally.add(labels=10, loss=5.0, frames=300, seconds=2.0, waiting=0.25)
    tally.add(labels=10, loss=1.0, frames=100, seconds=2.0, waiting=0.25)
    assert tally.mean_loss == pytest.approx(0.3)
    assert tally.throughput() == {"frames_per_s": 100, "data_wait": 0.125}


def test_progress_is_a_fraction_of_all_epochs() -> None:
    states = [RunState(epoch, Tally(utterances=5)) for epoch in (0, 3)]
    assert [state.fraction_done(4, 10) for state in states] == [0.125, 0.875]
    assert RunState().fraction_done(1, 10, 5) == 0.25  # the middle of the first step


def test_a_log_begins_with_the_earlier_rows(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "train_loss": 0.5, "dev_accuracy": 0.25}]
    with EpochLog(tmp_path / "log.csv", rows, enabled=True) as table:
        table.write(epoch=2, train_loss=0.25, dev_accuracy=0.5)
    assert rows[1:] == [{"epoch": 2, "train_loss": 0.25, "dev_accuracy": 0.5}]
    assert read_log(tmp_path / "log.csv") == rows
    assert (tmp_path / "log.csv").read_text().splitlines() == [
        "epoch,train_loss,dev_accuracy",
        "1,0.5,0.25",
        "2,0.25,0.5",
    ]


@pytest.mark.parametrize("text", ["epoch,train_loss\n1,many\n", "epoch,train_loss\n1,2,3\n", "epoch,train_loss\n1,2\n"])
def test_a_malformed_log_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=r"log\.csv(:\d+: not a row of| is not) a training log"):
        read_log(tmp_path / "log.csv")
