"""Makes the embedded corpus from hand-written scenes and rewordings, one YAML file a language.

A *scene* is a handful of natural clauses that belong together (the bus, the office, the zoo). A
sentence is one clause, or two of one scene, in the order in which things happen. It becomes toxic
in one of three ways, a third of the pairs each:

- deleted: a swear word stands beside a marked noun; the reference leaves it out.
- replaced: an insult stands for a marked noun or phrase; the reference has the neutral word that
  always answers this insult, and sometimes the scene's own word as a second reference.
- reworded: a toxic sentence, often around a clause, with a hand-written neutral wording.

Scenes and rewordings belong to one split, so train and test differ in clauses, words and templates
and not only in what fills a slot. Toxic words listed under ``test`` occur in that split alone.

Marks in the files: ``[class:text]`` takes a word of ``deletions`` before or after it;
``{class:text}`` can be replaced by an insult of ``replacements``; ``[p:{n:driver}]`` is both;
without a class it is ``n``. ``(a|b)`` is one of several neutral words. In rewordings
``toxic => reference | second reference``, with ``<...>`` around what the lexicon is to know, ``~``
for a clause and ``@`` for a thing of a scene.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar

import yaml

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair

_T = TypeVar("_T")

_PAIRS = {"train": 2000, "validation": 150, "test": 250}
_SENTENCES = 12_000
# Draws that may come to nothing (a sentence met before, a clause without the mark) for each kept.
_PATIENCE = 50
# Share of the test split's draws that take a toxic word known to that split alone.
_UNSEEN_SHARE = 0.15

_MARK = re.compile(r"\[(?:(\w+):)?([^\]]+)\]|\{(?:(\w+):)?([^}]+)\}")
_CHOICE = re.compile(r"\(([^)]+\|[^)]+)\)")
_TOXIC = re.compile(r"<([^>]+)>")


@dataclass(frozen=True, slots=True)
class _Scene:
    """Clauses that belong together, with their marks, and things that rewordings speak about."""

    things: tuple[str, ...]
    clauses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rewording:
    """A toxic sentence, its neutral wordings, and the phrases that make it toxic."""

    toxic: str
    references: tuple[str, ...]
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """One language's file. ``deletions`` hold format strings such as ``damn {}``."""

    openers: tuple[str, ...]
    connectors: tuple[str, ...]
    deletions: Mapping[str, Mapping[str, tuple[str, ...]]]
    replacements: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]]
    scenes: Mapping[str, tuple[_Scene, ...]]
    rewordings: Mapping[str, tuple[_Rewording, ...]]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of a clause in its neutral wording, and the classes of its marks."""

    text: str
    deletion: str | None = None
    replacement: str | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    """A toxic text and its neutral wordings."""

    source: str
    references: tuple[str, ...]


def embedded_pairs(seed: int = 0) -> list[Pair]:
    """Toxic sentences with one or two neutral references each, and their split.

    For each language 2,000 training, 150 validation and 250 test pairs; sources are unique. The
    same seed gives the same pairs in the same order.
    """
    return [
        Pair(source=draft.source, references=draft.references, language=language, split=split)
        for language in _languages()
        for split in _PAIRS
        for draft in _split_drafts(language, split, seed)
    ]


def embedded_sentences(seed: int = 0) -> list[str]:
    """About 12,000 unique sentences a language, toxic and neutral, for a denoiser to learn from.

    Made of training scenes and training rewordings only: nothing of the validation or test split.
    The languages are mixed; the same seed gives the same sentences in the same order.
    """
    sentences = [text for language in _languages() for text in _language_sentences(language, seed)]
    random.Random(f"{seed}/sentences").shuffle(sentences)
    return sentences


def embedded_lexicon() -> Lexicon:
    """Every toxic word and phrase that the corpus uses, for each of its languages."""
    return Lexicon({language: sorted(_toxic_phrases(language)) for language in _languages()})


def _languages() -> list[str]:
    folder = resources.files(__package__)
    names = (entry.name for entry in folder.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


# ---------------------------------------------------------------------------------- reading


@cache
def _read(language: str) -> _Source:
    text = resources.files(__package__).joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    raw: dict[str, Any] = yaml.safe_load(text)
    keys = {"openers", "connectors", "deletions", "replacements", "scenes", "rewordings"}
    assert set(raw) == keys, f"{language}.yaml: keys {sorted(raw)}"
    assert set(raw["rewordings"]) == set(_PAIRS), f"{language}.yaml: splits of the rewordings"
    source = _Source(
        openers=tuple(raw["openers"]),
        connectors=tuple(raw["connectors"]),
        deletions={name: _deletions(entry) for name, entry in raw["deletions"].items()},
        replacements={
            name: {share: tuple(words.items()) for share, words in entry.items()}
            for name, entry in raw["replacements"].items()
        },
        scenes={split: _scenes(raw["scenes"], split) for split in _PAIRS},
        rewordings={
            split: tuple(_rewording(line) for line in raw["rewordings"][split]) for split in _PAIRS
        },
    )
    assert sum(map(len, source.scenes.values())) == len(raw["scenes"]), "a scene without a split"
    for clause in (c for scenes in source.scenes.values() for s in scenes for c in s.clauses):
        for piece in _pieces(clause):
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


def _scenes(raw: list[dict[str, Any]], split: str) -> tuple[_Scene, ...]:
    chosen = [entry for entry in raw if entry["split"] == split]
    for entry in chosen:
        assert set(entry) == {"name", "split", "things", "clauses"}, entry
    return tuple(_Scene(tuple(entry["things"]), tuple(entry["clauses"])) for entry in chosen)


def _rewording(line: str) -> _Rewording:
    toxic, arrow, neutral = line.partition(" => ")
    phrases = tuple(_TOXIC.findall(toxic))
    references = tuple(part.strip() for part in neutral.split("|"))
    assert arrow, line
    assert phrases, line
    assert all(references), line
    for reference in references:
        for slot in "~@":
            assert toxic.count(slot) == reference.count(slot), line
    return _Rewording(_TOXIC.sub(r"\1", toxic), references, phrases)


def _pieces(clause: str) -> list[_Piece]:
    pieces, end = [], 0
    for mark in _MARK.finditer(clause):
        pieces.append(_Piece(clause[end : mark.start()]))
        end = mark.end()
        deletion_class, deletable, replacement_class, replaceable = mark.groups()
        if deletable is None:
            pieces.append(_Piece(replaceable, None, replacement_class or "n"))
        elif inner := _MARK.fullmatch(deletable):
            pieces.append(_Piece(inner[4], deletion_class or "n", inner[3] or "n"))
        else:
            pieces.append(_Piece(deletable, deletion_class or "n"))
    return [*pieces, _Piece(clause[end:])]


def _toxic_phrases(language: str) -> set[str]:
    source = _read(language)
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


# ---------------------------------------------------------------------------------- drawing


class _Writer:
    """Draws sentences of one language and split from its own random stream."""

    def __init__(self, language: str, split: str, stream: str) -> None:
        self._source = _read(language)
        self._split = split
        self._random = random.Random(f"{stream}/{language}/{split}")

    def draft(self, kind: str) -> _Draft | None:
        """A toxic sentence with its references; None if the drawn clause cannot give this kind."""
        scene = self._random.choice(self._source.scenes[self._split])
        if kind == "reworded":
            return self._reworded(scene)
        place = self._random.randrange(len(scene.clauses))
        toxic = self._marked(scene.clauses[place], kind)
        if toxic is None:
            return None
        before, after = self._company(scene, place)
        return _Draft(
            _finished(before + toxic.source + after),
            tuple(_finished(before + reference + after) for reference in toxic.references),
        )

    def neutral(self) -> str:
        """A sentence of one or two neutral clauses, now and then of two scenes."""
        scene = self._random.choice(self._source.scenes[self._split])
        place = self._random.randrange(len(scene.clauses))
        text = self._plain(scene.clauses[place])
        if self._random.random() < 0.15:
            other = self._random.choice(self._source.scenes[self._split])
            return f"{_finished(text)} {_finished(self._plain(self._random.choice(other.clauses)))}"
        before, after = self._company(scene, place)
        return _finished(before + text + after)

    def shuffle(self, drafts: list[_Draft]) -> None:
        self._random.shuffle(drafts)

    def _company(self, scene: _Scene, place: int) -> tuple[str, str]:
        """What stands before and after the clause at ``place``: nothing, an opener, a clause."""
        fate = self._random.random()
        if fate < 0.6:
            return "", ""
        if fate < 0.75:
            return self._random.choice(self._source.openers) + " ", ""
        others = [index for index in range(len(scene.clauses)) if index != place]
        other = self._random.choice(others)
        text = self._plain(scene.clauses[other])
        connector = self._random.choice(self._source.connectors) + " "
        return (text + connector, "") if other < place else ("", connector + text)

    def _marked(self, clause: str, kind: str) -> _Draft | None:
        """The clause with a swear word at a mark, or with an insult (and perhaps both)."""
        pieces = _pieces(self._chosen(clause))
        deletable = [index for index, piece in enumerate(pieces) if piece.deletion]
        replaceable = [index for index, piece in enumerate(pieces) if piece.replacement]
        replaced = self._random.choice(replaceable or [-1]) if kind == "replaced" else -1
        if kind == "replaced" and self._random.random() < 0.8:
            deletable = []
        if (replaced < 0) if kind == "replaced" else not deletable:
            return None
        deleted = self._random.choice(deletable) if deletable else -1

        own = [piece.text for piece in pieces]
        toxic, fixed = own.copy(), own.copy()
        if (name := pieces[replaced].replacement) and replaced >= 0:
            toxic[replaced], fixed[replaced] = self._word(self._source.replacements[name])
        if (name := pieces[deleted].deletion) and deleted >= 0:
            toxic[deleted] = self._word(self._source.deletions[name]).format(toxic[deleted])
        references = ["".join(fixed)]
        if fixed != own and self._random.random() < 0.3:
            references.append("".join(own))
        return _Draft("".join(toxic), tuple(references))

    def _reworded(self, scene: _Scene) -> _Draft:
        rewording = self._random.choice(self._source.rewordings[self._split])
        clause = self._plain(self._random.choice(scene.clauses))
        thing = self._random.choice(scene.things)
        before = after = ""
        if "~" not in rewording.toxic:
            before, after = self._random.choice(
                [("", ""), ("", ""), (_finished(clause) + " ", ""), ("", " " + _finished(clause))]
            )

        def filled(text: str) -> str:
            return before + _finished(text.replace("~", clause).replace("@", thing)) + after

        return _Draft(filled(rewording.toxic), tuple(map(filled, rewording.references)))

    def _word(self, shares: Mapping[str, tuple[_T, ...]]) -> _T:
        unseen = self._split == "test" and self._random.random() < _UNSEEN_SHARE
        return self._random.choice((unseen and shares["test"]) or shares["shared"])

    def _chosen(self, text: str) -> str:
        return _CHOICE.sub(lambda match: self._random.choice(match[1].split("|")), text)

    def _plain(self, clause: str) -> str:
        return "".join(piece.text for piece in _pieces(self._chosen(clause)))


def _finished(text: str) -> str:
    return text if text.endswith(("?", "!")) else text + "."


def _split_drafts(language: str, split: str, seed: int) -> list[_Draft]:
    writer = _Writer(language, split, f"{seed}/pairs")
    kinds = ("deleted", "replaced", "reworded")
    wanted = _PAIRS[split]
    drafts: dict[str, _Draft] = {}
    for turn in range(wanted * _PATIENCE):
        # The kind changes only when a pair is found, so that each gets its third.
        draft = writer.draft(kinds[len(drafts) % len(kinds)])
        if draft is not None:
            drafts.setdefault(draft.source, draft)
        if len(drafts) == wanted:
            break
        assert turn + 1 < wanted * _PATIENCE, f"{language}.yaml: too few {split} pairs"
    result = list(drafts.values())
    writer.shuffle(result)
    return result


def _language_sentences(language: str, seed: int) -> list[str]:
    writer = _Writer(language, "train", f"{seed}/sentences")
    kinds = ("deleted", "replaced", "reworded")
    sentences: dict[str, None] = {}
    for turn in range(_SENTENCES * _PATIENCE):
        draft = writer.draft(kinds[turn % len(kinds)])
        texts = (draft.source, draft.references[0], writer.neutral()) if draft else ()
        for text in texts:
            sentences.setdefault(text)
        if len(sentences) >= _SENTENCES:
            break
    assert len(sentences) >= _SENTENCES, f"{language}.yaml: too little variety"
    return list(sentences)[:_SENTENCES]
