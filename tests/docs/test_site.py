"""The documentation site: mkdocs.yml lists every page, the reference lists every public name, and the site builds."""

import os
import re
import subprocess
import sys
from importlib import import_module
from typing import Any
from urllib.parse import unquote

import pytest
import yaml
from documentation import PAGES, ROOT

import speechattn


def _pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in _pages(entry)]


def test_the_navigation_lists_every_page():
    nav = _pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    cards = [page for page in PAGES if page.startswith("speechattn/assets/")]  # docs/prediction.md links to them
    assert sorted(nav + cards) == sorted(PAGES)


def test_lists_render_in_the_site_too():
    """Code-hosting sites are more lenient: there a list may follow a line of text, and nested lists indent by 2."""
    for page, text in PAGES.items():
        before = ""
        for line in re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M).splitlines():
            if item := re.match(r"( *)(?:[-*]|\d+\.) ", line):
                assert len(item[1]) % 4 == 0, f"{page}: {line}"
                assert re.match(r"$| |[-*] |\d+\. ", before), f"{page}: a blank line is needed before {line}"
            before = line


def _referenced(page: str) -> list[str]:
    return re.findall(r"^::: ([\w.]+)$", PAGES[page], flags=re.M)


def test_the_reference_has_all_public_names_and_they_exist():
    assert sorted(_referenced("docs/api.md")) == [f"speechattn.{name}" for name in speechattn.__all__]
    for page in ("docs/api.md", "docs/api_modules.md", "docs/api_settings.md"):
        for block in re.split(r"^(?=::: )", PAGES[page], flags=re.M)[1:]:
            name = block.split()[1]
            parent, _, last = name.rpartition(".")
            thing = getattr(import_module(parent), last, None) or import_module(name)
            if members := re.search(r"members: \[(.*)\]", block):
                for member in members[1].split(", "):
                    assert hasattr(thing, member), f"{name} has no {member}"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="the site needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"?https?:", text), (
            "pages must work without a network"
        )
        if page.name != "404.html":  # whose links are absolute
            for link in re.findall(r"(?:src|href)=\"?([^\" >]+)", text):
                target = unquote(link.split("#")[0].split("?")[0])
                assert ":" in target or (page.parent / target).exists(), f"{page}: {link}"
    reference = (tmp_path / "docs/api.html").read_text(encoding="utf-8")
    for name in speechattn.__all__:
        assert f'id="speechattn.{name}"' in reference
