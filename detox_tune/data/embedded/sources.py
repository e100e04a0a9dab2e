"""The hand-written files of the embedded corpus, read and checked: one YAML file per language.

Marks in the clauses of a scene: ``[class:text]`` takes a word of ``deletions`` before or after it;
``{class:text}`` can be replaced by an insult of ``replacements``; ``[p:{n:driver}]`` is both;
without a class it is ``n``. ``(a|b)`` is one of several neutral words. In rewordings
``toxic => reference | second reference``, with ``<...>`` around what the lexicon is to know, ``~``
for a clause and ``@`` for a thing of a scene. Toxic words under ``test`` occur in that split alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

SPLITS = ("train", "validation", "test")

_MARK = re.compile(r"\[(?:(\w+):)?([^\]]+)\]|\{(?:(\w+):)?([^}]+)\}")
_TOXIC = re.compile(r"<([^>]+)>")


@dataclass(frozen=True, slots=True)
class Scene:
    """Clauses that belong together, with their marks, and things that rewordings speak about."""

    things: tuple[str, ...]
    clauses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rewording:
    """A toxic sentence, its neutral wordings, and the phrases that make it toxic."""

    toxic: str
    references: tuple[str, ...]
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LanguageFile:
    """One language's file. ``deletions`` hold format strings such as ``damn {}``."""

    openers: tuple[str, ...]
    connectors: tuple[str, ...]
    deletions: Mapping[str, Mapping[str, tuple[str, ...]]]
    replacements: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]]
    scenes: Mapping[str, tuple[Scene, ...]]
    rewordings: Mapping[str, tuple[Rewording, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a clause in its neutral wording, and the classes of its marks."""

    text: str
    deletion: str | None = None
    replacement: str | None = None


def corpus_languages() -> list[str]:
    """The languages that have a file, in alphabetical order."""
    folder = resources.files(__package__)
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


@cache
def read_file(language: str) -> LanguageFile:
    """The checked content of ``<language>.yaml``."""
    text = resources.files(__package__).joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    raw: dict[str, Any] = yaml.safe_load(text)
    keys = {"openers", "connectors", "deletions", "replacements", "scenes", "rewordings"}
    assert set(raw) == keys, f"{language}.yaml: keys {sorted(raw)}"
    assert set(raw["rewordings"]) == set(SPLITS), f"{language}.yaml: splits of the rewordings"
    source = LanguageFile(
        openers=tuple(raw["openers"]),
        connectors=tuple(raw["connectors"]),
        deletions={name: _deletions(entry) for name, entry in raw["deletions"].items()},
        replacements={
            name: {share: tuple(words.items()) for share, words in entry.items()}
            for name, entry in raw["replacements"].items()
        },
        scenes={split: _scenes(raw["scenes"], split) for split in SPLITS},
        rewordings={
            split: tuple(_rewording(line) for line in raw["rewordings"][split]) for split in SPLITS
        },
    )
    assert sum(map(len, source.scenes.values())) == len(raw["scenes"]), "a scene without a split"
    for clause in (c for scenes in source.scenes.values() for s in scenes for c in s.clauses):
        for piece in pieces(clause):
            assert piece.deletion is None or piece.deletion in source.deletions, clause
            assert piece.replacement is None or piece.replacement in source.replacements, clause
            assert not set(piece.text) & set("[]{}<>~@"), clause
    return source


def _deletions(entry: dict[str, dict[str, list[str]]]) -> dict[str, tuple[str, ...]]:
    """``before`` and ``after`` lists of a class as format strings around the marked text."""
    assert set(entry) <= {"before", "after"}, entry
    forms = {"before": "%s {}", "after": "{} %s"}
    return {
        share: tuple(
            forms[place] % word
            for place in sorted(entry, reverse=True)
            for word in entry[place][share]
        )
        for share in ("shared", "test")
    }


def _scenes(raw: list[dict[str, Any]], split: str) -> tuple[Scene, ...]:
    chosen = [entry for entry in raw if entry["split"] == split]
    for entry in chosen:
        assert set(entry) == {"name", "split", "things", "clauses"}, entry
    return tuple(Scene(tuple(entry["things"]), tuple(entry["clauses"])) for entry in chosen)


def _rewording(line: str) -> Rewording:
    toxic, arrow, neutral = line.partition(" => ")
    phrases = tuple(_TOXIC.findall(toxic))
    references = tuple(part.strip() for part in neutral.split("|"))
    assert arrow, line
    assert phrases, line
    assert all(references), line
    for reference in references:
        for slot in "~@":
            assert toxic.count(slot) == reference.count(slot), line
    return Rewording(_TOXIC.sub(r"\1", toxic), references, phrases)


def pieces(clause: str) -> list[Piece]:
    """The clause cut at its marks; the pieces' texts together are its neutral wording."""
    cut, end = [], 0
    for mark in _MARK.finditer(clause):
        cut.append(Piece(clause[end : mark.start()]))
        end = mark.end()
        deletion_class, deletable, replacement_class, replaceable = mark.groups()
        if deletable is None:
            cut.append(Piece(replaceable, None, replacement_class or "n"))
        elif inner := _MARK.fullmatch(deletable):
            cut.append(Piece(inner[4], deletion_class or "n", inner[3] or "n"))
        else:
            cut.append(Piece(deletable, deletion_class or "n"))
    return [*cut, Piece(clause[end:])]


def toxic_phrases(language: str) -> set[str]:
    """Every word and phrase of the language's file that makes a sentence toxic."""
    source = read_file(language)
    deleted = {
        form.replace("{}", "").strip()
        for shares in source.deletions.values()
        for forms in shares.values()
        for form in forms
    }
    replaced = {
        toxic
        for shares in source.replacements.values()
        for words in shares.values()
        for toxic, _ in words
    }
    reworded = {
        phrase
        for rewordings in source.rewordings.values()
        for rewording in rewordings
        for phrase in rewording.phrases
    }
    return deleted | replaced | reworded
