"""The texts that stand for a class: they change zero-shot numbers by points, so their name stands beside each."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..files import sha256_file
from .classes import plain, unknown_label
from .lists import is_there, read_json

_KINDS = ("a photo of", "a video of", "a example of", "a demonstration of")
_ACTORS = ("", "a person ", "a person using ", "a person doing ", "a person during ", "a person performing ",
           "a person practicing ")  # fmt: skip
TEMPLATES = tuple(f"{kind} {actor}{{}}." for kind in _KINDS for actor in _ACTORS)
SETS = {"name": ("{}",), "templates": TEMPLATES}


@dataclass(frozen=True)
class Prompts:
    """A prompt set: its short id, and class names -> the texts of each class, the same number for each."""

    id: str
    texts: Callable[[Sequence[str]], list[list[str]]]


def load_prompts(*given: str | os.PathLike) -> Prompts:
    """A prompt set: one of ``SETS``, templates with a {} each, or a JSON file of FROSTER's 29 texts."""
    one = os.fspath(given[0]) if len(given) == 1 else ""
    path = Path(one)
    if not one or one in SETS or ("{" in one and not is_there(path)):
        templates = SETS.get(one, given)
        for template in templates:
            if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
                needs = "each needs one {} for the class name and no other braces"
                raise ValueError(f"prompts hold {template!r}; {needs}")
        known = {SETS["name"]: "name", TEMPLATES: f"{len(TEMPLATES)} templates"}
        return Prompts(known.get(templates, ", ".join(templates)), partial(_filled, templates))
    if not is_there(path):
        allowed = "name, templates, a JSON file, or templates with a {} for the class name"
        raise ValueError(f"prompts {one!r}: no such file; allowed: {allowed}")
    content = read_json(path, "prompts")
    try:
        known, sentences = _rephrased(content)
    except ValueError as error:
        raise ValueError(f"prompts {one!r}: {error}") from error

    def texts(names: Sequence[str]) -> list[list[str]]:
        # In training FROSTER draws one template a step; our text encoder is frozen, so all 29 serve there, too.
        lacking = [unknown_label(name, known) for name in names if plain(name) not in sentences]
        if lacking:
            said = f"no sentence for {len(lacking)} classes: {'; '.join(lacking)}"
            raise ValueError(f"prompts {one!r}: {said}")
        described = [f"{name}: {sentences[plain(name)]}" for name in names]
        return [[*(f"{text} {long}" for text in of), long] for of, long in zip(_filled(TEMPLATES, names), described)]

    return Prompts(f"{len(TEMPLATES)} templates + rephrased:{sha256_file(path)[:8]}", texts)


def _filled(templates: Sequence[str], names: Sequence[str]) -> list[list[str]]:
    return [[template.replace("{}", name) for template in templates] for name in names]


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
