"""The command accepts every command line in the documentation."""

import re
import shlex
from functools import cache

import pytest
from documentation import PAGES, ROOT, blocks

from speechattn.commands.main import _COMMANDS, _parser
from speechattn.corpora import CORPORA

PLACEHOLDERS = {"N": "1", "CORPUS": "timit_sample", "RECIPE": "quickstart"}


def _words(command: str) -> list[str]:
    """The words of a command up to its comment, pipe or redirection; optional parts are included."""
    command = re.split(r"\s[|>&]|\s<<|\s#", re.sub(r"\[(--[^]]*)\]", r"\1", command))[0]
    return shlex.split(re.sub(r"\b([A-Z]+)\b", lambda word: PLACEHOLDERS.get(word[1], word[1]), command))


def _commands(lines: list[str]) -> list[list[str]]:
    found = [re.search(r"(?:^|-m |\| )speechattn (?=[a-z-])(.*)", line.strip()) for line in lines]
    return [_words(match[1]) for match in found if match]


def _in_blocks(text: str) -> list[list[str]]:
    return _commands("\n".join(blocks(text, "")).replace("\\\n", " ").splitlines())


def _in_sentences(text: str) -> list[list[str]]:
    return _commands([" ".join(span.split()) for span in re.findall(r"(?<!`)`(speechattn [^`]+)`", text)])


@cache
def _options(command: str, corpus: str | None) -> set[str]:
    """The options in the command's help."""
    parser = _parser(command, [command] if corpus is None else [command, corpus])
    text = parser._subcommands_action._name_parser_map[command].format_help()
    return set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, flags=re.M))


def _unknown(words: list[str]) -> list[str]:
    """The options that the command does not have for any corpus."""
    command = words[0]
    corpora = [corpus for corpus in CORPORA if corpus in words] or [None]
    if command in ("download", "prepare") and corpora == [None]:
        corpora = list(CORPORA)
    known = set().union(*(_options(command, corpus) for corpus in corpora))
    return [word for word in words if word.startswith("--") and word not in known]


def _refuses(words: list[str]) -> bool:
    try:
        _parser(words[0], words).parse_args(words)
    except SystemExit as end:
        return end.code == 2
    return False


@pytest.mark.parametrize("page", PAGES)
def test_the_command_takes_what_a_page_shows(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for words in _in_blocks(PAGES[page]):
        if "..." not in words:
            assert not _refuses(words), f"speechattn {shlex.join(words)}: {capsys.readouterr().err}"
    for words in _in_sentences(PAGES[page]):  # often only a part of a command
        assert words[0] in (*_COMMANDS, "--help", "--version")
        if words[0] not in _COMMANDS or words[0] == "train":  # train's help does not list every option
            assert not _refuses(words), f"speechattn {shlex.join(words)}: {capsys.readouterr().err}"
        else:
            assert not _unknown(words), words


def test_commands_are_found_and_wrong_ones_refused():
    sentence = "Say `speechattn predict\n--smooth --no-such`."
    assert _in_sentences(sentence) == [words := ["predict", "--smooth", "--no-such"]]
    assert _unknown(words) == ["--no-such"]
    block = "```\ncat a | speechattn stream - \\\n  --right N [--smoth]  # live\n```\n"
    assert _in_blocks(block) == [words := ["stream", "-", "--right", "1", "--smoth"]]
    assert _refuses(words) and not _refuses(words[:-1])
    assert not _unknown(["prepare", "--tier"]) and _unknown(["prepare", "espeak", "--tier"])
    assert sum(len(_in_blocks(page)) for page in PAGES.values()) > 30
