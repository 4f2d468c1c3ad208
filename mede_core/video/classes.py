"""Class names as lists give them and as they are compared, and their prompts, which change numbers by points."""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unicodedata import category

from ..files import sha256_file
from .lists import Row, bare, cells, header_of, is_there, read_json, read_lines, tidy

_NAMES = ("name", "class_name", "label_name", "classname", "action", "category", "class", "label")
_NUMBERS = ("id", "index", "idx", "number", "class_id", "label_id", "class_index", "", "label", "class")  # "": pandas'
_IN_FRONT = re.compile(r"\(?(\d{1,9})(?:\s*[,;:|\t]\s*|[.)]?\s+)(\S.*)")  # 0 run; 0,run; 0. run; (0) run
_BEHIND = re.compile(r"(.*[^\s,;:|])(?:\s*[,;:|\t]\s*|\s+)(\d{1,9})")
_QUOTED_NUMBER = re.compile(r'^"(\d+)"|"(\d+)"$')
_BULLET = re.compile(r"[-*\u2022]\s+")
_KINDS = ("a photo of", "a video of", "a example of", "a demonstration of")
_ACTORS = ("", "a person ", "a person using ", "a person doing ", "a person during ", "a person performing ",
           "a person practicing ")  # fmt: skip
TEMPLATES = tuple(f"{kind} {actor}{{}}." for kind in _KINDS for actor in _ACTORS)
SETS = {"name": ("{}",), "templates": TEMPLATES}


def plain(name: str) -> str:
    """A class name without case, blanks and signs, as names are compared; marks such as Indic vowels stay."""
    return "".join(one for one in tidy(name) if category(one)[0] in "LMN").casefold()


def unknown_label(label: str, names: Sequence[str], first: int = 0) -> str:
    """Say that a label is no class name, or no number of one (counted from ``first``), and which one may be meant."""
    if re.fullmatch(r"-?\d+", label):
        return f"label {label} is out of range {first} to {len(names) - 1 + first}"
    spelled = {plain(name): name for name in names}
    close = difflib.get_close_matches(plain(label), spelled, n=1)
    return f"unknown label {label!r}" + (f"; did you mean {spelled[close[0]]!r}?" if close else "")


def resolve(
    rows: Sequence[Row], classes: Mapping[int, str] | None, problems: list[str]
) -> tuple[list[str], list[tuple[Row, str]]]:
    """The classes, given or else as the rows name them, and each row with its own; other labels become problems."""
    numbers = {row.label for row in rows if re.fullmatch(r"-?\d+", row.label)}
    named = {row.label for row in rows} - numbers
    if classes is None and numbers and not named:
        some = ", ".join(sorted(numbers)[:5])
        raise ValueError(f"{rows[0].where}: labels are integers ({some}); give the classes file, or class_names")
    names, numbered, found = sorted(named) if classes is None else [*classes.values()], classes or {}, []
    for row in rows:
        if row.label in names:
            found.append((row, row.label))
        elif row.label in numbers and (number := int(row.label[:10])) in numbered:  # no class has a longer one
            found.append((row, numbered[number]))
        else:
            problems.append(f"{row.where}: {unknown_label(row.label, names, min(numbered, default=0))}")
    return names, found


def clean_name(dataset: str, name: str) -> str:
    """A class name of a dataset's files as a prompt says it."""
    if dataset in ("kinetics400", "kinetics600"):
        name = name.lower()
    elif dataset == "ucf101":  # camel case
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("YoYo", "Yoyo"))
    elif dataset in ("hmdb51", "folder"):
        name = name.replace("_", " ")
    elif dataset == "ssv2":
        name = re.sub(r"[\[\]]", "", name)
    return tidy(name)


def check_class_names(names: Sequence[str]) -> list[str]:
    """The names, tidied; none, an empty one or duplicates (without case) are refused."""
    tidied = [tidy(str(name)) for name in names]
    folded = [name.casefold() for name in tidied]
    if not tidied or not all(tidied):
        raise ValueError(f"classes: {len(tidied)} names, {tidied.count('')} of them empty; expected at least one")
    if odd := [name for name in tidied if any(category(one) in ("Cc", "Cs") for one in name)]:
        raise ValueError(f"classes hold {odd[0]!r}, which is no text")
    if len(set(folded)) < len(folded):
        duplicates = sorted({name for name, key in zip(tidied, folded) if folded.count(key) > 1})
        raise ValueError(f"classes hold duplicates: {', '.join(map(repr, duplicates))}")
    return tidied


def given_classes(classes: Sequence[str], file: str) -> list[str]:
    """The classes that a command line names, or a file of them; none where it names none."""
    if classes and file:
        raise ValueError("--classes and --classes-file are both given; one is enough")
    told = [name.rstrip(" ,;") for name in classes]  # archery, bowling: of shells, commas are a part of words
    if told == ["kinetics400"]:  # as torchvision's models list them; torch is loaded
        from torchvision.models.video import R3D_18_Weights

        return R3D_18_Weights.KINETICS400_V1.meta["categories"]
    return read_class_names(file) if file else check_class_names(told) if told else []


def read_class_names(path: str | os.PathLike) -> list[str]:
    return list(read_classes(path).values())


def read_classes(path: str | os.PathLike) -> dict[int, str]:
    """{label: class name} of a list of classes: JSON, lines, or columns; labels count from 0 or 1, or by the lines."""
    path, said = Path(path), f"classes file {os.fspath(path)!r}"
    pairs = _from_json(path, said) if path.suffix.lower() == ".json" else _from_lines(path)
    pairs.sort(key=lambda pair: pair[0])
    numbers = [number for number, _ in pairs]
    if numbers not in ([*range(len(pairs))], [*range(1, len(pairs) + 1)]):
        shown = ", ".join(map(str, numbers[:5]))
        raise ValueError(
            f"{said}: it was taken for numbers and names, but the numbers ({shown}, ...) are not 0 to {len(pairs) - 1}"
            f" or 1 to {len(pairs)}, each once; names that hold numbers fit into a JSON list"
        )
    try:
        return dict(zip(numbers, check_class_names([name for _, name in pairs])))
    except ValueError as error:
        raise ValueError(f"{said}: {error}") from error


def _from_json(path: Path, said: str) -> list[tuple[int, str]]:
    """{"0": name}, {name: 0} or [name, ...]: the peers' ``*-index2cls.json``."""
    content = read_json(path, "classes file")
    if isinstance(content, list):
        content = dict(enumerate(content))
    pairs = list(content.items()) if isinstance(content, dict) else []
    if not all(str(number).isdecimal() for number, _ in pairs):
        pairs = [pair[::-1] for pair in pairs]
    if not pairs or not all(str(number).isdecimal() and isinstance(name, str) for number, name in pairs):
        raise ValueError(f"{said}: expected names, or numbers and names")
    return [(int(number), name) for number, name in pairs]


def _from_lines(path: Path) -> list[tuple[int, str]]:
    """One name on each line, perhaps with a number before or behind it, or columns under a header such as id,name."""
    lines = [line for _, line in read_lines(path, "classes file")]
    separator, places = header_of(lines[0], _NAMES, _NUMBERS) if lines else ("", [])
    if lines and not separator:
        separator, places = header_of(lines[0], _NAMES, (), needed=1)
    if separator and separator != " ":
        table = [cells(line, separator) or [] for line in lines[1:]]
        names, numbers = ([row[i] if i is not None and i < len(row) else "" for row in table] for i in places)
        rows = [*zip(numbers, names)] if places[1] is not None else [*enumerate(names)]
    else:
        header = bool(separator) or (len(lines) > 1 and lines[0].lower() in _NAMES)
        lines = [_QUOTED_NUMBER.sub(r"\1\2", line.rstrip(",;\t ")) for line in lines[header:]]
        if all(map(_BULLET.match, lines)):
            lines = [_BULLET.sub("", line) for line in lines]
        forms = [[form.fullmatch(line) for line in lines] for form in (_IN_FRONT, _BEHIND)]
        rows = next(([match.groups() for match in form] for form in forms if all(form)), [])
        if rows and forms[0] and not all(forms[0]):
            rows = [row[::-1] for row in rows]
            numbers, names = sorted(int(number) for number, _ in rows), {name.casefold() for _, name in rows}
            if numbers not in ([*range(len(rows))], [*range(1, len(rows) + 1)]) or len(names) < len(rows):
                rows = []  # names that end in a number
        rows = rows or [*enumerate(lines)]
    if bad := [row for row in rows if not str(row[0]).isdecimal()]:
        raise ValueError(f"classes file {os.fspath(path)!r}: {bad[0][0]!r} is no number, before {bad[0][1]!r}")
    return [(int(number), _unquoted(name)) for number, name in rows]


def _unquoted(name: str) -> str:
    return (cells(name, ",") or [name])[0] if name.startswith('"') else bare(name)


# ------------------------------------------------------------------------------------ the texts that stand for a class
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
