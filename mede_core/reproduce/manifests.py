"""What a list of videos holds, for the check before a run: rows of each split, classes, whether its files are there.

`python -m mede_core.video.datasets prepare` has looked at every file when it wrote a list; here a few are looked for,
which finds a wrong root. Reading the list of a whole Kinetics takes about a second.
"""

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mede_core.video.datasets import read_sidecar
from mede_core.video.manifest import read_manifest

SAMPLED = 20  # files of a prepared list that are looked for


@dataclass(frozen=True)
class ManifestFacts:
    """What a list of videos says.

    Attributes:
        counts: {(label, the row's splits separated by blanks): rows}.
        sidecar: the content of the JSON beside the CSV; {} where there is none.
        absent: sampled files that are not there.
        sampled: files looked for.
    """

    counts: Counter
    sidecar: dict = field(default_factory=dict)
    absent: int = 0
    sampled: int = 0

    @property
    def rows(self) -> int:
        return self.counts.total()

    @property
    def classes(self) -> int:
        return len(self.sidecar.get("classes") or {label for label, _ in self.counts})

    @property
    def splits(self) -> dict[str, int]:
        """{split: rows} by name; {} for a plain list."""
        found: Counter = Counter()
        for (_, memberships), rows in self.counts.items():
            found.update(dict.fromkeys(memberships.split(), rows))
        return dict(sorted(found.items()))

    def clips(self, split: str = "all", half: str = "all", shots: int = 0) -> int:
        """Return how many clips `mede_core.video.datasets.select` would give.

        Args:
            split: one of `splits`, or "all".
            half: "all", or a half that the sidecar lists: "base" or "novel".
            shots: at most so many of each class; 0 for all.
        """
        names = self.sidecar.get("splits", {}).get(split, {}).get("classes") or {label for label, _ in self.counts}
        names = set(names) & set(self.sidecar.get(half) or ()) if half != "all" else set(names)
        of_class: Counter = Counter()
        for (label, memberships), rows in self.counts.items():
            if (split == "all" or split in memberships.split()) and label in names:
                of_class[label] += rows
        return sum(min(rows, shots) if shots else rows for rows in of_class.values())


def look_at(path: Path) -> ManifestFacts:
    """Read a list of videos: one that `prepare` made, with its JSON beside it, or a plain `path,label` CSV.

    Args:
        path: the CSV.

    Returns:
        what it holds.

    Raises:
        ValueError: no such file, malformed rows, labels that are no class, no row at all, a sidecar that is damaged or
            of another CSV, or no video where the list says.
    """
    sidecar = read_sidecar(path)
    if sidecar is None:
        plain = read_manifest(path)  # looks for every file
        absent = sum(not file.is_file() for file in plain.paths)
        return ManifestFacts(Counter((plain.class_names[label], "") for label in plain.labels), {}, absent, len(plain))
    rows = _prepared_rows(path, set(sidecar["classes"]))
    root = path.parent / sidecar["root"]
    sample = rows[:: -(-len(rows) // SAMPLED)]
    absent = [root / name for name, _, _ in sample if not (root / name).is_file()]
    if len(absent) == len(sample):
        raise ValueError(f"none of {len(sample)} sampled videos is there, such as {str(absent[0])!r}: wrong root?")
    return ManifestFacts(Counter((label, splits) for _, label, splits in rows), sidecar, len(absent), len(sample))


def _prepared_rows(path: Path, classes: set[str]) -> list[tuple[str, str, str]]:
    """Return (path, label, splits) of each row."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = [(row.get("path"), row.get("label"), row.get("split") or "") for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read as a UTF-8 CSV: {error}") from error
    if lacking := {"path", "label", "split"} - set(reader.fieldnames or ()):
        raise ValueError(f"it lacks the columns {', '.join(sorted(lacking))}; run prepare again")
    if unknown := sorted({str(label) for _, label, _ in rows if label not in classes}):
        raise ValueError(f"{len(unknown)} labels are no class of its sidecar, such as {unknown[0]!r}")
    if not rows:
        raise ValueError("it lists no video")
    return rows
