"""Makes the embedded corpus from hand-written scenes and rewordings, one YAML file per language.

A *scene* is a handful of natural clauses that belong together (the bus, the office, the zoo). A
sentence is one clause, or two of one scene, in the order in which things happen. It becomes toxic
in one of three ways:

- deleted (one pair in seven): a swear word stands beside a marked noun; the reference leaves it
  out.
- replaced (three in seven): an insult stands for a marked noun or phrase; the reference has the
  neutral word that always answers this insult, and sometimes the scene's own word as a second
  reference.
- reworded (three in seven): a toxic sentence, often around a clause, with a hand-written neutral
  wording.

Scenes and rewordings belong to one split, so train and test differ in clauses, words and templates
and not only in what fills a slot. Toxic words listed under ``test`` occur in that split alone.
"""

import random
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from detox_tune.data.embedded.sources import (
    Piece,
    Scene,
    corpus_languages,
    pieces,
    read_file,
    toxic_phrases,
)
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair

_T = TypeVar("_T")

_PAIRS = {"train": 12_000, "validation": 150, "test": 250}
_SENTENCES = 24_000
# Draws that may come to nothing (a sentence met before, a clause without the mark) for each kept.
_PATIENCE = 50
# Were deletion the usual answer, a lexicon would do and no model would be needed.
_KINDS = ("replaced", "reworded", "deleted", "replaced", "reworded", "replaced", "reworded")
# Share of the test split's draws that take a toxic word known to that split alone.
_UNSEEN_SHARE = 0.03
# Share of the training replacements that draw the class of insult first, so that none is rare.
_EVEN_SHARE = 0.5

_CHOICE = re.compile(r"\(([^)]+\|[^)]+)\)")


@dataclass(frozen=True, slots=True)
class _Draft:
    """A toxic text and its neutral wordings."""

    source: str
    references: tuple[str, ...]


@cache
def embedded_pairs() -> tuple[Pair, ...]:
    """Toxic sentences with one or two neutral references each, and their split.

    For each language 12,000 training, 150 validation and 250 test pairs, always the same ones in
    the same order; sources are unique.
    """
    return tuple(
        Pair(source=draft.source, references=draft.references, language=language, split=split)
        for language in corpus_languages()
        for split in _PAIRS
        for draft in _split_drafts(language, split)
    )


def embedded_sentences(languages: Collection[str] = ()) -> tuple[str, ...]:
    """24,000 unique sentences of each language, toxic and neutral, for a denoiser to learn from.

    Made of training scenes and training rewordings only: nothing of the validation or test split.
    The `languages` asked for (all, if none) are mixed, always in the same order.
    """
    wanted = (name for name in corpus_languages() if not languages or name in languages)
    return _mixed_sentences(tuple(wanted))


def embedded_lexicon() -> Lexicon:
    """Every toxic word and phrase that the corpus uses, for each of its languages."""
    return Lexicon({name: sorted(toxic_phrases(name)) for name in corpus_languages()})


class _Writer:
    """Draws sentences of one language and split from its own random stream."""

    def __init__(self, language: str, split: str, stream: str) -> None:
        self._file = read_file(language)
        self._split = split
        self._random = random.Random(f"{stream}/{language}/{split}")
        self._places: dict[str, list[tuple[Scene, int]]] = {}  # where a class can be replaced
        for scene in self._file.scenes[split]:
            for place, clause in enumerate(scene.clauses):
                for name in {piece.replacement for piece in pieces(clause)} - {None}:
                    self._places.setdefault(str(name), []).append((scene, place))
        self._classes = sorted(self._places)

    def draft(self, kind: str) -> _Draft | None:
        """A toxic sentence with its references; None if the drawn clause cannot give this kind."""
        scene = self._random.choice(self._file.scenes[self._split])
        if kind == "reworded":
            return self._reworded(scene)
        place = self._random.randrange(len(scene.clauses))
        if kind == "replaced" and self._split == "train" and self._random.random() < _EVEN_SHARE:
            scene, place = self._random.choice(self._places[self._random.choice(self._classes)])
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
        scene = self._random.choice(self._file.scenes[self._split])
        place = self._random.randrange(len(scene.clauses))
        text = self._plain(scene.clauses[place])
        if self._random.random() < 0.03:
            other = self._random.choice(self._file.scenes[self._split])
            return f"{_finished(text)} {_finished(self._plain(self._random.choice(other.clauses)))}"
        before, after = self._company(scene, place)
        return _finished(before + text + after)

    def shuffle(self, drafts: list[_Draft]) -> None:
        self._random.shuffle(drafts)

    def _company(self, scene: Scene, place: int) -> tuple[str, str]:
        """What stands before and after the clause at ``place``: nothing, an opener, a clause."""
        fate = self._random.random()
        if fate < 0.85:
            return "", ""
        if fate < 0.93:
            return self._random.choice(self._file.openers) + " ", ""
        others = [index for index in range(len(scene.clauses)) if index != place]
        other = self._random.choice(others)
        text = self._plain(scene.clauses[other])
        connector = self._random.choice(self._file.connectors) + " "
        return (text + connector, "") if other < place else ("", connector + text)

    def _marked(self, clause: str, kind: str) -> _Draft | None:
        """The clause with a swear word at a mark, or with an insult (a fifth of them with both)."""
        parts = pieces(self._chosen(clause))
        deletable = [index for index, part in enumerate(parts) if part.deletion]
        replaceable = [index for index, part in enumerate(parts) if part.replacement]
        if not (deletable if kind == "deleted" else replaceable):
            return None
        own = [part.text for part in parts]
        toxic, fixed = own.copy(), own.copy()
        if kind == "replaced":
            place = self._random.choice(replaceable)
            toxic[place], fixed[place] = self._insult(parts[place])
        if deletable and (kind == "deleted" or self._random.random() < 0.2):
            place = self._random.choice(deletable)
            toxic[place] = self._swear_word(parts[place]).format(toxic[place])
        references = ["".join(fixed)]
        if fixed != own and self._random.random() < 0.3:
            references.append("".join(own))
        return _Draft("".join(toxic), tuple(references))

    def _reworded(self, scene: Scene) -> _Draft:
        rewording = self._random.choice(self._file.rewordings[self._split])
        clause = self._plain(self._random.choice(scene.clauses))
        thing = self._random.choice(scene.things)
        before = after = ""
        if "~" not in rewording.toxic:
            before, after = self._random.choice(
                [*[("", "")] * 8, (_finished(clause) + " ", ""), ("", " " + _finished(clause))]
            )

        def filled(text: str) -> str:
            return before + _finished(text.replace("~", clause).replace("@", thing)) + after

        return _Draft(filled(rewording.toxic), tuple(map(filled, rewording.references)))

    def _insult(self, part: Piece) -> tuple[str, str]:
        assert part.replacement is not None
        return self._word(self._file.replacements[part.replacement])

    def _swear_word(self, part: Piece) -> str:
        assert part.deletion is not None
        return self._word(self._file.deletions[part.deletion])

    def _word(self, shares: Mapping[str, tuple[_T, ...]]) -> _T:
        unseen = self._split == "test" and self._random.random() < _UNSEEN_SHARE
        return self._random.choice((unseen and shares["test"]) or shares["shared"])

    def _chosen(self, text: str) -> str:
        return _CHOICE.sub(lambda match: self._random.choice(match[1].split("|")), text)

    def _plain(self, clause: str) -> str:
        return "".join(piece.text for piece in pieces(self._chosen(clause)))


def _finished(text: str) -> str:
    return text if text.endswith(("?", "!")) else text + "."


def _split_drafts(language: str, split: str) -> list[_Draft]:
    writer = _Writer(language, split, "0/pairs")
    wanted = _PAIRS[split]
    drafts: dict[str, _Draft] = {}
    for _ in range(wanted * _PATIENCE):
        if len(drafts) == wanted:
            break
        # The kind changes only when a pair is found, so that each gets its share.
        draft = writer.draft(_KINDS[len(drafts) % len(_KINDS)])
        if draft is not None:
            drafts.setdefault(draft.source, draft)
    assert len(drafts) == wanted, f"{language}.yaml: too few {split} pairs"
    result = list(drafts.values())
    writer.shuffle(result)
    return result


@cache
def _mixed_sentences(languages: tuple[str, ...]) -> tuple[str, ...]:
    sentences = [text for language in languages for text in _language_sentences(language)]
    random.Random("0/sentences").shuffle(sentences)
    return tuple(sentences)


@cache
def _language_sentences(language: str) -> tuple[str, ...]:
    writer = _Writer(language, "train", "0/sentences")
    sentences: dict[str, None] = {}
    for turn in range(_SENTENCES * _PATIENCE):
        draft = writer.draft(_KINDS[turn % len(_KINDS)])
        texts = (draft.source, draft.references[0], writer.neutral()) if draft else ()
        for text in texts:
            sentences.setdefault(text)
        if len(sentences) >= _SENTENCES:
            break
    assert len(sentences) >= _SENTENCES, f"{language}.yaml: too little variety"
    return tuple(sentences)[:_SENTENCES]
