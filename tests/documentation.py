"""The pages of the documentation, for tests."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PATTERNS = ("README.md", "docs/**/*.md", "data/*.md", "benchmarks/*.md", "recipes/**/*.md", "speechattn/assets/*/*.md")
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for pattern in _PATTERNS
    for path in sorted(ROOT.glob(pattern))
}  # path from the repository root -> text


def blocks(text: str, language: str) -> list[str]:
    """Code blocks in a language; "" finds those without one."""
    return [code for name, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.S | re.M) if name == language]
