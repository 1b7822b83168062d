"""What the tests of the page do over and over."""

from pathlib import Path

from playwright.sync_api import Page, expect


def upload(page: Page, path: Path) -> None:
    """Choose a file, and wait until its phones are there."""
    expect(page.get_by_role("button", name="Choose a file")).to_be_enabled()  # once it knows the server's limits
    page.locator("#file").set_input_files(path)
    expect(page.get_by_role("heading", name=path.name)).to_be_visible()
    expect(page.get_by_role("option").first).to_be_attached()


def wait_for_plays(page: Page, count: int) -> None:
    """Wait until so many stretches have begun to play, as `conftest.NOTES` notes; a button says Stop while one does."""
    for _ in range(200):
        if len(page.evaluate("window.played")) >= count:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"nothing played for the {count}th time")
