"""What `mede predict` found, as text. Torch-free."""

from collections.abc import Iterator, Mapping, Sequence

RANDOM = "RANDOM WEIGHTS: this is a smoke run, its ranking means nothing"


def as_text(answers: Sequence[Mapping], width: int = 0) -> str:
    """The answers as lines, with bars where a terminal has so many columns; what does not change is said once."""
    lines, said = [], {}
    for one in answers:
        facts = _facts(one)
        lines += [f"{name:10s}  {value}" for name, value in facts.items() if value and said.get(name) != value]
        said = {**said, **facts}
        if "predictions" in one:
            lines += ["", *_ranking(one, width), ""]
    marks = [f"*** {RANDOM} ***"] if any("warning" in one for one in answers) else []
    return "\n".join([*marks, *lines, *marks]).rstrip("\n")


def _facts(answer: Mapping) -> dict:
    if "error" in answer:
        return {"video": f"{answer['video']} cannot be read: {answer['error']}"}
    width, height = answer["size"]
    file = f"{answer['frames_in_file']} frames, {answer['fps']:.4g} fps, {width}x{height}, {answer['backend']}"
    views = f", {answer['views']} views" if answer["views"] > 1 else ""
    return {
        "model": answer["model"],
        "weights": answer["weights"],
        "checkpoint": answer["checkpoint"] and f"{answer['checkpoint']} ({answer['trained']})",
        "read": f"{answer['frames']} frames, {answer['sampling']}{views}",
        "prompts": answer["prompts"],
        "explained": answer.get("explanation"),
        "video": f"{answer['video']} ({file})",
    }


def _ranking(answer: Mapping, width: int) -> Iterator[str]:
    ranked = [(f"{k:3d}.", one) for k, one in enumerate(answer["predictions"], 1)]
    timed = [(_seconds(one), one) for one in answer.get("windows", ())]
    orders = [(f"{one['order']:9s}", one) for one in answer.get("order_test", ())]
    for title, rows in (("", ranked), ("over time", timed), ("in another order", orders)):
        yield from ["", title] if title and rows else []
        longest = max((len(one["class"]) for _, one in rows), default=0)
        for head, one in rows:
            line = f"{head} {100 * one['probability']:6.2f} %  {one['class']}"
            if "changed" in one:
                kept = f"another answer; the first keeps {100 * one['before']:.2f} %"
                line += f"  ({kept if one['changed'] else 'the same'})"
            elif room := max(0, width - longest - len(head) - 14):
                bar = "\u2588" * round(room * one["probability"])
                line = f"{line}{' ' * (longest - len(one['class']))}  {bar}".rstrip()
            yield line


def _seconds(window: Mapping) -> str:
    return "  no times " if window["start"] is None else f"{window['start']:7.2f} to {window['end']:7.2f} s"
