"""A command that must fail, as all do: with one line and exit code 2."""

import pytest

from speechattn.commands.main import main


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    """The one line that the command prints when it exits with 2; but for log messages, nothing else is on stderr."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in argv])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("speechattn: ") for line in lines)
    (error,) = (line for line in lines if line.startswith("speechattn: error: "))
    return error
