"""CTM, .phn, .lab and Audacity's labels: written files are read back, and errors name file and line."""

import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechattn.labels import line_files
from speechattn.labels.intervals import Interval, Segment


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


SYMBOL = (
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4)
    .map(composed)
    .filter(lambda text: len(text.split()) == 1 and not text.startswith((";;", "\\")))
)


@st.composite
def tracks(draw, last=2_000_000):
    """Phones in whole numbers, [start, end), with gaps here and there."""
    bounds = sorted(draw(st.lists(st.integers(0, last), min_size=2, max_size=9, unique=True)))
    rows = [Interval(start, end, draw(SYMBOL)) for start, end in pairwise(bounds)]
    return [row for row in rows if draw(st.booleans())] or rows


def written(tmp_path_factory, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path_factory.mktemp("labels") / name
    path.write_bytes(text.encode(encoding))
    return path


@given(tracks(), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_phn(tmp_path_factory, track, newline, encoding):
    text = "".join(f"{start} {end} {symbol}{newline}" for start, end, symbol in track)
    assert line_files.read_phn(written(tmp_path_factory, "a.phn", text, encoding)) == track


@given(tracks(), st.booleans())
def test_lab_in_seconds(tmp_path_factory, track, score):
    ending = " -12.5\n" if score else "\n"
    text = "".join(f"{start / 16000!r} {end / 16000!r} {symbol}{ending}" for start, end, symbol in track)
    expected = [Segment(symbol, start / 16000, end / 16000) for start, end, symbol in track]
    assert line_files.read_lab(written(tmp_path_factory, "a.lab", text)) == expected


@given(tracks(), st.booleans())
def test_lab_in_htk_units(tmp_path_factory, track, score):
    track = [*track, Interval(2_000_000, 2_000_016, "end")]  # a sample at 16 kHz is 625 units
    ending = " -12.5\n" if score else "\n"
    text = "".join(f"{start * 625} {end * 625} {symbol}{ending}" for start, end, symbol in track)
    segments = line_files.read_lab(written(tmp_path_factory, "a.lab", text))
    assert [Interval(round(s.start * 16000), round(s.end * 16000), s.phone) for s in segments] == track


@given(tracks(), st.booleans())
def test_audacity(tmp_path_factory, track, spectral):
    extra = "\\\t100.5\t2000.25\n" if spectral else ""
    text = "".join(f"{start / 16000!r}\t{end / 16000!r}\t{symbol} x\n{extra}" for start, end, symbol in track)
    expected = [Segment(f"{symbol} x", start / 16000, end / 16000) for start, end, symbol in track]
    assert line_files.read_audacity(written(tmp_path_factory, "a.txt", text)) == expected


@given(tracks(), tracks(), st.randoms())
def test_ctm_of_two_utterances_in_any_order(tmp_path_factory, first, second, random):
    rows = [(name, *row) for name, track in (("u1", first), ("u2", second)) for row in track]
    random.shuffle(rows)
    lines = [f"{u} 1 {start / 16000:.7f} {(end - start) / 16000:.7f} {symbol} 0.5\n" for u, start, end, symbol in rows]
    back = line_files.read_ctm(written(tmp_path_factory, "a.ctm", "".join(lines)))
    for name, track in (("u1", first), ("u2", second)):
        assert [Interval(round(s.start * 16000), round(s.end * 16000), s.phone) for s in back[name]] == track
        assert {segment.confidence for segment in back[name]} == {0.5}


@given(tracks())
def test_ctm_that_we_write(tmp_path_factory, track):
    path = tmp_path_factory.mktemp("ctm") / "a.ctm"
    segments = [Segment(symbol, start / 16000, end / 16000, 0.25) for start, end, symbol in track]
    line_files.write_ctm(path, segments)
    assert line_files.read_ctm(path) == {"a": segments}


@pytest.mark.parametrize("phone", ["x y", ""])
def test_ctm_refuses_phones_that_would_shift_its_fields(tmp_path: Path, phone: str) -> None:
    with pytest.raises(ValueError, match="is empty or has white space"):
        line_files.write_ctm(tmp_path / "a.ctm", [Segment(phone, 0.0, 1.0)])


def test_ctm_names_an_utterance_without_white_space(tmp_path: Path) -> None:
    line_files.write_ctm(tmp_path / "my file.ctm", [Segment("x", 0.0, 1.0)])
    assert list(line_files.read_ctm(tmp_path / "my file.ctm")) == ["my_file"]


def test_ctm_with_comments_and_without_confidence(tmp_path: Path) -> None:
    (tmp_path / "a.ctm").write_text(";; comment\nu1 1 0 0.5 a\n\nu2 A 0.1 0.2 b 0.75\nu1 1 0.5 0.25 c 1\n")
    assert line_files.read_ctm(tmp_path / "a.ctm") == {
        "u1": [Segment("a", 0.0, 0.5, 1.0), Segment("c", 0.5, 0.75, 1.0)],
        "u2": [Segment("b", 0.1, 0.3, 0.75)],
    }


def test_a_rounded_end_gives_way_to_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "a.ctm").write_text("u 1 0.000 0.124 a\nu 1 0.123 0.2 b\n")
    assert line_files.read_ctm(tmp_path / "a.ctm")["u"] == [Segment("a", 0.0, 0.123), Segment("b", 0.123, 0.323)]
    (tmp_path / "a.ctm").write_text("u 1 0.000 0.126 a\nu 1 0.123 0.2 b\n")
    with pytest.raises(ValueError, match="a.ctm:2: phone 'b' from 0.123 to 0.323 overlaps 'a'"):
        line_files.read_ctm(tmp_path / "a.ctm")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.phn", b"0 10 a\n10 b\n", r"a.phn:2: expected samples `start end phone`, got '10 b'"),
        ("a.phn", b"0 0.5 a\n", r"a.phn:1: expected samples"),
        ("a.phn", b"0 10 a\n\n9 20 b\n", r"a.phn:3: phone 'b' from 9 to 20 overlaps 'a'"),
        ("a.phn", b"0 10 a\n10 10 b\n", r"a.phn:2: phone 'b' from 10 to 10 is empty"),
        ("a.phn", b"-1 10 a\n", r"a.phn:1: phone 'a' from -1 to 10 is empty or before 0"),
        ("a.phn", b"\xff\xfe\x00", "a.phn:1: not text in UTF-8 or UTF-16"),
        ("a.phn", "a\né".encode("latin-1"), "a.phn:2: not text in UTF-8 or UTF-16"),
        ("a.phn", None, "a.phn: no such file"),
        ("a.ctm", b"u 1 0.0 0.5\n", r"a.ctm:1: expected `utterance channel start duration phone"),
        ("a.ctm", b"u 1 0.0 x a\n", r"a.ctm:1: expected"),
        ("a.ctm", b"u 1 0.0 nan a\n", r"a.ctm:1: phone 'a' from 0.0 to nan is empty"),
        ("a.ctm", b"u 1 0.0 inf a\n", r"a.ctm:1: phone 'a' from 0.0 to inf is empty"),
        ("a.ctm", b"u 1 0.0 0 a\n", r"a.ctm:1: phone 'a' from 0.0 to 0.0 is empty"),
        ("a.lab", b"0 2000000 a\n2000000 b\n", r"a.lab:2: expected `start end phone \[score\]`, got '2000000 b'"),
        ("a.lab", b"0 2000000 s2 -1.5 a -2.0\n", r"a.lab:1: expected"),
        ("a.lab", b"0 2000000 a b\n", r"a.lab:1: expected"),
        ("a.lab", b"0 1 a\n1 2 b\n", "a.lab: whole numbers are HTK's units of 100 ns, .* a decimal point"),
        ("a.lab", b"0.0 0.5 a\n0.4 0.9 b\n", "a.lab:2: phone 'b' from 0.4 to 0.9 overlaps"),
        ("a.txt", b"0.0 0.5 a\n", "a.txt:1: expected `start end label` with tabs, got '0.0 0.5 a'"),
        ("a.txt", b"HE SAID SO\n", "a.txt:1: expected"),
        ("a.txt", b"0.5\t0.5\ta\n", "a.txt:1: phone 'a' from 0.5 to 0.5 is empty"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    readers = {
        ".phn": line_files.read_phn, ".ctm": line_files.read_ctm,
        ".lab": line_files.read_lab, ".txt": line_files.read_audacity,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message) as caught:
        readers[Path(name).suffix](tmp_path / name)
    assert "\n" not in str(caught.value)


def test_empty_files_hold_no_phones(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\n \n")
    assert (
        line_files.read_phn(tmp_path / "a")
        == line_files.read_lab(tmp_path / "a")
        == line_files.read_audacity(tmp_path / "a")
        == []
    )
    assert line_files.read_ctm(tmp_path / "a") == {}
