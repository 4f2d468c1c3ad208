"""The page of ``mede bias``: its numbers with intervals over clips, and what they say, from its JSON. Torch-free."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..config import is_random
from ..files import atomic_write
from ..video.bias import FILMED, ORDERS, OTHERS
from .gallery import fill_template
from .intervals import Interval, accuracy_interval, paired_difference
from .write import render_table

FEW = 30  # clips, below which an interval over them says nothing
MEAN = "before another background, mean"


def measures(found: Mapping) -> dict[str, tuple[Interval, Interval]]:
    """{how clips are shown: (accuracy in percent, points lost against the same clips as filmed)}."""
    backgrounds = [*dict.fromkeys(way for clip in found["clips"] for way in clip["answers"])][1 + len(ORDERS) :]
    ways = {way: [way] for way in (FILMED, *ORDERS)} | {f"before {way}": [way] for way in backgrounds}
    ways |= {MEAN: backgrounds} if backgrounds else {}
    made = {}
    for title, shown in ways.items():
        clips = [clip for clip in found["clips"] if clip["answers"].keys() >= {*shown}]
        right = [sum(clip["answers"][way] == clip["label"] for way in shown) / len(shown) for clip in clips]
        filmed = [float(clip["answers"][FILMED] == clip["label"]) for clip in clips]
        made |= {title: (accuracy_interval(right), paired_difference(filmed, right))} if clips else {}
    return made


def followed(found: Mapping) -> Interval | None:
    """How often a clip before the background of another is answered with the other's class, in percent."""
    labels = {clip["clip"]: clip["label"] for clip in found["clips"]}
    clips = [clip for clip in found["clips"] if clip.get("background of") in labels]
    return accuracy_interval([c["answers"][OTHERS] == labels[c["background of"]] for c in clips]) if clips else None


def reservations(found: Mapping, filmed: Interval) -> list[str]:
    """Why the numbers mean nothing; mostly no reason."""
    said = ["the weights are random"] if is_random(found["model"]["weights"]) else []
    said += [f"{filmed.clips} clips are too few ({FEW} are the least)"] if filmed.clips < FEW else []
    chance = 100 / len(found["model"]["classes"])
    if found["labeled"] and filmed.low <= chance:
        said.append(f"the accuracy as filmed is not above chance, {chance:.1f} %")
    return said


def readings(found: Mapping, made: Mapping[str, tuple[Interval, Interval]]) -> list[str]:
    """What the numbers say, in sentences that follow from the intervals alone."""
    shuffled, backward = (made[way][1] for way in ORDERS[:2])
    said = "reads the order of frames" if max(shuffled.low, backward.low) > 0 else "shows no sign of reading the order"
    lines = [f"It {said}: it loses {shuffled} points when frames are shuffled, {backward} when reversed."]
    if MEAN in made:
        gap = made[MEAN][1]
        said = "leans on the background" if gap.low > 0 else "shows no sign of leaning on the background"
        lines.append(f"It {said}: it loses {gap} points before another one (the static gap).")
    if follows := followed(found):
        lines.append(f"Before another clip's background it names that clip's class: {follows} % of clips.")
    return lines


def write_page(folder: Path) -> str:
    """Write bias.html and its table beside a bias.json; gives what the command prints."""
    found = json.loads((folder / "bias.json").read_text(encoding="utf-8"))
    made, model = measures(found), found["model"]
    measured = "Accuracy, %" if found["labeled"] else "Answer stays, %"
    rows = [{"Clips are shown": way, "Clips": now.clips, measured: str(now),
             "Lost, points": "" if way == FILMED else str(lost)} for way, (now, lost) in made.items()]  # fmt: skip
    notes = ["In brackets: 95 % intervals over clips; what is lost is compared clip by clip."]
    notes += [] if found["labeled"] else ["No labels: the answer to a clip as filmed stands for its label."]
    caption = f"{model['name']}, {model['num_frames']} frames of {model['image_size']} pixels"
    table = render_table(pd.DataFrame(rows), folder / "tables" / "bias", caption=caption, notes=notes)["html"]
    doubts = reservations(found, made[FILMED][0])
    lines = [] if doubts else readings(found, made)
    css = "img.strip { width: 100%; image-rendering: pixelated; }"
    about = {"found": found, "doubts": doubts, "lines": lines, "css": css}
    page = fill_template("bias.html.j2", **about, table=table.read_text(encoding="utf-8"))
    atomic_write(folder / "bias.html", page)
    head = [f"*** THESE NUMBERS MEAN NOTHING: {'; '.join(doubts)} ***"] if doubts else []
    return "\n".join([*head, *lines, f"written: {folder / 'bias.html'}, bias.json"])
