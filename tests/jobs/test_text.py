"""One reader for all text from users."""

from pathlib import Path

import pytest

from speechattn.alignment.lexicon import known_words, read_lexicon
from speechattn.jobs.text import numbered_lines, read_text
from speechattn.labels.files import read_alignments
from speechattn.phones import read_phones

TEXT = "Zorblat\tZ AO1 R B L AE2 T\r\n\r\nse\u0301ance S EY AA N S\r"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_marks_encodings_line_ends_and_composed_letters(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TEXT.encode(encoding))
    assert list(numbered_lines(tmp_path / "a")) == [(1, "Zorblat\tZ AO1 R B L AE2 T"), (3, "s\u00e9ance S EY AA N S")]
    assert "e\u0301" in read_text(tmp_path / "a", compose=False)
    lexicon = read_lexicon(tmp_path / "a")
    assert lexicon["zorblat"] == [("Z", "AO", "R", "B", "L", "AE", "T")]
    assert known_words("Zorblat se\u0301ance", lexicon) == ["zorblat", "s\u00e9ance"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_label_files_and_inventories(encoding: str, tmp_path: Path) -> None:
    contents = {
        "a.lab": "0.0 1.0 e\u0301\n",
        "a.txt": "0.0\t1.0\te\u0301\n",
        "a.csv": "start,end,phone,confidence\n0,1,e\u0301,1\n",
        "a.json": '[{"start": 0, "end": 1, "phone": "e\u0301", "confidence": 1}]',
        "a.ctm": "a 1 0 1 e\u0301\n",
        "a.phn": "0 16000 e\u0301\n",
    }
    for name, text in contents.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert [segment.phone for segment in read_alignments(tmp_path / name)["a"]] == ["\u00e9"]
    (tmp_path / "phones.txt").write_bytes("e\u0301\nb\n".encode(encoding))
    assert read_phones(tmp_path / "phones.txt") == ("\u00e9", "b")


@pytest.mark.parametrize(
    "content, message",
    [
        ("a\nb\né".encode("latin-1"), r"a:3: not text in UTF-8 or UTF-16: "),
        ("a\nb".encode("utf-16-le"), r"a:1: not text in UTF-8 or UTF-16: it has null characters"),
        (None, "a: no such file"),
    ],
)
def test_other_encodings_are_refused_by_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / "a")
