"""What a notebook writes: figures, tables, the settings it runs with, and the marks that numbers carry. Torch-free."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ..config import Config, is_random
from ..files import repo_root, say
from .figures.style import save_figure
from .write import MISSING, render_table


class Page:
    """The folder of a notebook's figures and tables (default: ``reports/lab`` of the repository, else of the working
    directory, which is said); one call saves one and returns what the notebook shows."""

    def __init__(self, out_dir: str | os.PathLike = ""):
        root = repo_root()
        self.folder = Path(str(out_dir)) if out_dir else (root or Path.cwd()) / "reports" / "lab"
        if not out_dir and root is None:
            say(f"figures and tables are written to {self.folder}")

    def figure(self, name: str, draw: Callable[[], Figure], data=None, *, run: str | None = None) -> Figure:
        """Save the figure that ``draw`` makes, with what is plotted and its run as JSON beside it, and return it."""
        save_figure(draw, self.folder / "figures" / name, data, run=run)
        figure = draw()
        figure.set_label(name)  # the gallery shows the saved figure, light or dark, in place of the cell's picture
        return figure

    def table(self, name: str, table, *, caption: str, notes: Sequence[str] = ()):
        """Save a table (frame or comparison) as HTML, Markdown, LaTeX and CSV, and return its HTML."""
        from IPython.display import HTML

        files = render_table(table, self.folder / "tables" / name, caption=caption, notes=notes)
        return HTML(filename=files["html"])

    def settings(self, of: Config | Iterable[Mapping], *names: str):
        """The effective settings of a configuration, or of result records: those asked for, then all that are changed.
        Of records their own count, whatever the profile says today; where they differ each value is listed."""
        default = Config().model_dump()
        if isinstance(of, Config):
            found = [of.model_dump()]
        else:
            found = [record["settings"] for record in of]
            default["data"] = "world" if any(one["data"] == "world" for one in found) else default["data"]
        if unknown := [name for name in names if name not in default]:
            raise ValueError(f"unknown settings {unknown}; known: {', '.join(default)}")
        changed = [name for name, usual in default.items() if any(one.get(name, usual) != usual for one in found)]
        rows = [
            {
                "Setting": name, "Default": _text(default[name]), "Changed": "yes" if name in changed else "",
                "Value": ", ".join(dict.fromkeys(_text(one[name]) for one in found if name in one)) or MISSING,
            }
            for name in dict.fromkeys((*names, *changed))
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["Setting", "Value", "Default", "Changed"]).style.hide()


def _text(value) -> str:
    """A setting as text that says nothing about this machine's folders."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return Path(text).name if os.sep in text else text


def marks(records: Iterable[Mapping]) -> str:
    """What must stand wherever these records are shown: random weights, shipped, older code; mostly nothing."""
    found = list(records)
    said = ["RANDOM WEIGHTS: these numbers mean nothing"] if any(is_random(one["weights"]) for one in found) else []
    for fact, words in (("shipped", "shipped with the package"), ("older", "made by older code")):
        count = sum(bool(one.get(fact)) for one in found)
        said += [words if count == len(found) else f"partly {words}"] if count else []
    return "; ".join(said)


def marked(title: str, records: Iterable[Mapping]) -> str:
    mark = marks(records)
    return f"{title} ({mark})" if mark else title
