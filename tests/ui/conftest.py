"""The browser of these tests: a headless Chromium from the distribution's packages, and `playwright` (extra `ui`)."""

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium from the distribution's packages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-ui")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path: install the distribution's package `chromium`")
    with playwright.sync_playwright() as session:
        chromium = session.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()
