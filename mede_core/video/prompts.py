"""The texts that stand for a class: they change zero-shot numbers by points, so their name stands beside each."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..files import sha256_file
from .classes import plain, unknown_label
from .lists import read_json

_KINDS = ("a photo of", "a video of", "a example of", "a demonstration of")
_ACTORS = ("", "a person ", "a person using ", "a person doing ", "a person during ", "a person performing ",
           "a person practicing ")  # fmt: skip
TEMPLATES = tuple(f"{kind} {actor}{{}}." for kind in _KINDS for actor in _ACTORS)


@dataclass(frozen=True)
class Prompts:
    """A prompt set: its short id, and class names -> the texts of each class, the same number for each."""

    id: str
    texts: Callable[[Sequence[str]], list[list[str]]]


def load_prompts(spec: str | os.PathLike) -> Prompts:
    """A prompt set: the bare ``name``, the 28 ``templates`` of Open-VCLIP, or a JSON file of FROSTER's 29 texts."""
    if spec == "name":
        return Prompts("name", lambda names: [[name] for name in names])
    if spec == "templates":
        return Prompts(f"{len(TEMPLATES)} templates", lambda names: [_filled(name) for name in names])
    path = Path(spec)
    if not path.is_file():
        raise ValueError(f"prompts {os.fspath(spec)!r}: no such file; allowed: name, templates, or a JSON file")
    content = read_json(path, "prompts")
    try:
        known, sentences = _rephrased(content)
    except ValueError as error:
        raise ValueError(f"prompts {os.fspath(path)!r}: {error}") from error

    def texts(names: Sequence[str]) -> list[list[str]]:
        # In training FROSTER draws one template a step; our text encoder is frozen, so all 29 serve there, too.
        lacking = [unknown_label(name, known) for name in names if plain(name) not in sentences]
        if lacking:
            said = f"no sentence for {len(lacking)} classes: {'; '.join(lacking)}"
            raise ValueError(f"prompts {os.fspath(path)!r}: {said}")
        described = [f"{name}: {sentences[plain(name)]}" for name in names]
        return [[*(f"{text} {long}" for text in _filled(name)), long] for name, long in zip(names, described)]

    return Prompts(f"{len(TEMPLATES)} templates + rephrased:{sha256_file(path)[:8]}", texts)


def _filled(name: str) -> list[str]:
    return [template.replace("{}", name) for template in TEMPLATES]


def _rephrased(content) -> tuple[list[str], dict[str, str]]:
    """Class names, and {plain(name): sentence}, of {name: sentence}, {index: "name: sentence"} or a list of those."""
    if isinstance(content, list):
        content = {str(index): sentence for index, sentence in enumerate(content)}
    if not content or not isinstance(content, dict):
        raise ValueError("expected {class name: sentence}, one at least")
    names, sentences = [], {}
    for key, sentence in content.items():
        if not isinstance(sentence, str) or not sentence.strip():
            raise ValueError(f"the sentence of {key!r} is {sentence!r}; expected text")
        head, colon, tail = sentence.partition(":")
        name = head if key.isdigit() else key
        if key.isdigit() and not colon:
            raise ValueError(f"entry {key} is {sentence!r}; expected 'name: sentence'")
        if plain(name) in sentences:
            raise ValueError(f"{name!r} is there twice")
        repeats = bool(colon) and plain(head) == plain(name)
        names.append(name.strip())
        sentences[plain(name)] = (tail if repeats else sentence).strip()
    return names, sentences
