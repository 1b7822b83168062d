"""MkDocs hooks that build the site from the pages where they lie in the repository; mkdocs.yml names this file.

Pages keep their paths, so links between them work on a code-hosting site as well as in the built site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/**/*.md", "data/*.md", "benchmarks/*.md", "recipes/**/*.md", "speechattn/assets/*/*.md")
LINKED = ("docs/*.png", "docs/*.json", "docs/*.css", "recipes/*.sh", "recipes/*/*.png")  # shown or linked by pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Collect the pages of the whole repository instead of docs/ alone."""
    kept = Files([file for file in files if file.src_dir != config.docs_dir])  # files of the theme
    for path in sorted(path for pattern in (*PAGES, *LINKED) for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        kept.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return kept


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to folders at their README.md, as code-hosting sites do."""

    def whole(link: re.Match[str]) -> str:
        target = (ROOT / page.file.src_uri).parent / link[1]
        return f"]({link[1]}/README.md)" if (target / "README.md").is_file() else link[0]

    return re.sub(r"\]\(([^()#:\s]+)\)", whole, markdown)


class DoctestExamples(griffe.Extension):
    """Show docstring sections `Example:` as doctests; griffe calls them `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the section."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"(?m)^( *)Example:$", r"\1Examples:", obj.docstring.value)
