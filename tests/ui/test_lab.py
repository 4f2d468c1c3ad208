"""The notebooks in a real JupyterLab in headless Chromium: they run, and their sliders move the pictures.

Needs `playwright` (extra `ui`) and a Chromium on the path: `make test-ui`. Notebooks are opened in a fresh clone of
what is committed, so nothing that git tracks changes. Screenshots go to `reports/ui/`.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mede_core.files import repo_root

pytestmark = pytest.mark.ui
SCREENSHOTS = repo_root() / "reports" / "ui"
LOCAL = ("http://127.0.0.1", "data:", "blob:")
# These run in the page. Lab connects a notebook to its kernel late, and "run all" before that silently runs nothing;
# `kernel.info` is a promise that the kernel keeps once it answers.
KERNEL_READY = """async (name) => {
  const panel = window.jupyterapp?.shell.currentWidget;
  const session = panel?.sessionContext?.session;
  if (panel?.context?.path !== name || !session?.kernel) return false;
  const late = new Promise(resolve => setTimeout(() => resolve(null), 1000));
  return (await Promise.race([session.kernel.info, late])) !== null;
}"""
RUN_ALL = """() => {
  window.ranAll = false;
  window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.ranAll = true; });
}"""
RESTART = """() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"""
THEME = """(theme) => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"""
SCREENS = [(1280, 800), (1920, 1080)]
COURSE = {  # notebook -> its explorer, and that one's main slider
    "01_static_bias": ("mede-bias", "mede-covered"),
    "02_cross_batch_meta_optimization": ("mede-meta", "mede-inner_lr"),
    "03_gaussian_weight_averaging": ("mede-gwa", "mede-sigma"),
    "04_where_it_looks": ("mede-bias", "mede-covered"),
    "05_your_video": ("mede-video", "mede-view"),
}
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code')
  .map(cell => ({count: cell.model.executionCount, outputs: cell.model.outputs.toJSON()}))"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab of our own on an ephemeral port; yields a function from a notebook's name to its address."""
    folder = tmp_path_factory.mktemp("lab")
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{repo_root()}", clone], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    home = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    home |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    environment = {**os.environ, **home, "JUPYTER_PREFER_ENV_PATH": "1", "MEDE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(clone)
    environment.pop("MPLBACKEND", None)  # as in a reader's Lab, not as in the other tests
    quiet = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))  # no pop-up over the pictures
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={clone}", "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, folder / "lab.log")
        # A workspace for each notebook: Lab would bring back the tabs of the last one.
        yield lambda name: f"http://127.0.0.1:{port}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?token={token}"
    finally:
        server.send_signal(signal.SIGTERM)  # ends the kernels too
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(240):
        assert server.poll() is None, f"JupyterLab ended at once:\n{log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer within 2 minutes:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def notebook(browser, lab):
    """Open a notebook and run it, once; gives its page, which may talk to nothing but this machine."""
    pages = {}

    def open_and_run(name: str):
        if name not in pages:
            context = browser.new_context(viewport={"width": 1280, "height": 1000}, service_workers="block")
            context.route(lambda url: not url.startswith(LOCAL), lambda route: route.abort())
            pages[name] = context.new_page()
            pages[name].set_default_timeout(120_000)
            run_notebook(pages[name], lab, name)
        return pages[name]

    yield open_and_run
    for page in pages.values():
        page.context.close()


def wait_until(page, what: str, question, seconds: float):
    """Ask until the answer is true; a page cannot hang the test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := question():
            return answer
        page.wait_for_timeout(200)
    raise AssertionError(f"{what}: not within {seconds:g} s")


def run_notebook(page, lab, name: str) -> None:
    """Open a notebook and run all of it; a cell that failed fails the test."""
    page.goto(lab(name))
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    run_all(page, name)
    folder = SCREENSHOTS / name  # what a reader sees, for a person to look at; nothing is compared with it
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, cell in enumerate(page.query_selector_all(".jp-Notebook .jp-Cell")):
        cell.scroll_into_view_if_needed()
        cell.screenshot(path=folder / f"{number:02d}.png")


def run_all(page, name: str) -> None:
    wait_until(page, "a kernel that answers", lambda: page.evaluate(KERNEL_READY, f"notebooks/{name}.ipynb"), 180)
    page.evaluate(RUN_ALL)

    def finished() -> bool:
        for cell in page.evaluate(CELLS):
            for output in cell["outputs"]:
                assert output["output_type"] != "error", f"{output['ename']}: {output['evalue']}"
        return page.evaluate("() => window.ranAll")

    wait_until(page, f"{name} run to its end", finished, 600)
    cells = page.evaluate(CELLS)
    assert len(cells) > 3
    assert all(cell["count"] for cell in cells), "a code cell was not run"


def explorer(page, css: str, number: int = 0):
    """One explorer of a notebook, scrolled into view."""
    found = page.locator(f".mede-explorer.{css}").nth(number)
    found.wait_for()
    found.scroll_into_view_if_needed()
    return found


def pixels(widget) -> str:
    """The picture's bytes, as the browser holds them."""
    return widget.locator("img.mede-picture, .mede-picture img").first.evaluate(
        """async (img) => {
          const bytes = new Uint8Array(await (await fetch(img.src)).arrayBuffer());
          const digest = await crypto.subtle.digest('SHA-256', bytes);
          return Array.from(new Uint8Array(digest)).join(',') + ':' + bytes.length;
        }"""
    )


def press(page, widget, slider: str, key: str, times: int = 1) -> None:
    """Move a slider with the keyboard, as a reader without a mouse would."""
    handle = widget.locator(f".{slider} .noUi-handle")
    handle.focus()
    for _ in range(times):
        page.keyboard.press(key)


def wait_for_change(page, widget, before: str) -> str:
    wait_until(page, "another picture", lambda: pixels(widget) != before, 20)
    return pixels(widget)


def answers_by_hand(page, css: str, slider: str) -> int:
    """Move a slider by keyboard, then drag it: each changes readout and picture; gives how many explorers there are."""
    widget = explorer(page, css)
    handle, told = widget.locator(f".{slider} .noUi-handle"), widget.locator(".mede-readout")
    picture, text, height = pixels(widget), told.inner_text(), widget.bounding_box()["height"]
    press(page, widget, slider, "ArrowRight", 3)
    wait_for_change(page, widget, picture)
    wait_until(page, "another readout", lambda: told.inner_text() != text, 20)
    press(page, widget, slider, "ArrowLeft", 3)
    wait_until(page, "the first picture again, at the first setting", lambda: pixels(widget) == picture, 20)
    assert widget.bounding_box()["height"] == height, "the page jumps"
    text, place = told.inner_text(), handle.bounding_box()
    track = widget.locator(f".{slider} .noUi-base").bounding_box()
    page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + 0.9 * track["width"], place["y"] + place["height"] / 2, steps=4)
    page.mouse.up()
    wait_for_change(page, widget, picture)
    wait_until(page, "another readout", lambda: told.inner_text() != text, 20)
    assert widget.locator("img").count() == 1, "pictures pile up"
    return page.locator(f".mede-explorer.{css}").count()


@pytest.mark.parametrize("name", COURSE)
def test_the_course_answers_keyboard_and_mouse_also_after_a_restart(notebook, name):
    page = notebook(name)
    count = answers_by_hand(page, *COURSE[name])
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        page.evaluate(THEME, theme)
        for width, height in SCREENS:
            page.set_viewport_size({"width": width, "height": height})
            explorer(page, COURSE[name][0])
            page.wait_for_timeout(500)
            page.screenshot(path=SCREENSHOTS / f"{name}_{width}_{theme.split()[1].lower()}.png")
    page.evaluate(RESTART)
    run_all(page, name)
    assert answers_by_hand(page, *COURSE[name]) == count, "a second explorer, or none"


def test_the_average_moves_on_the_map_of_a_trajectory(notebook):
    page = notebook("03_gaussian_weight_averaging")
    widget = explorer(page, "mede-gwa", 1)
    before = pixels(widget)
    press(page, widget, "mede-mu", "ArrowRight", 10)
    wait_for_change(page, widget, before)
    widget.screenshot(path=SCREENSHOTS / "gwa_map_after_mu.png")


def test_the_meta_step_answers_its_knobs(notebook):
    page = notebook("02_cross_batch_meta_optimization")
    widget = explorer(page, "mede-meta")
    first = pixels(widget)
    press(page, widget, "mede-inner_lr", "ArrowRight", 2)
    second = wait_for_change(page, widget, first)
    press(page, widget, "mede-query_weight", "ArrowLeft", 3)
    third = wait_for_change(page, widget, second)
    widget.locator("select").select_option(label="second order (exact)")
    wait_for_change(page, widget, third)
    widget.screenshot(path=SCREENSHOTS / "meta_after_knobs.png")


def test_an_uploaded_video_is_shown_and_answered(notebook, tmp_path):
    from clips import make_clip

    page = notebook("05_your_video")
    widget, before = explorer(page, "mede-video"), pixels(explorer(page, "mede-video"))
    with page.expect_file_chooser() as chooser:
        widget.get_by_role("button", name="upload").click()
    chooser.value.set_files(make_clip(tmp_path / "my clip.mp4"))
    wait_for_change(page, widget, before)
    assert widget.get_by_label("video file").input_value().endswith("my clip.mp4")
    widget.screenshot(path=SCREENSHOTS / "video_after_upload.png")


def test_a_picture_is_not_wider_than_the_page(notebook):
    page = notebook("03_gaussian_weight_averaging")
    image = explorer(page, "mede-gwa", 1).locator("img").bounding_box()
    area = page.locator(".jp-Notebook .jp-OutputArea-output").first.bounding_box()
    assert image["x"] + image["width"] <= area["x"] + area["width"] + 1
