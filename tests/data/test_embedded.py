"""The embedded corpus: sizes, splits that share nothing, variety, and a lexicon that fits."""

import hashlib
from collections import Counter
from importlib import resources
from itertools import combinations
from typing import Any

import pytest
import regex
import yaml

from detox_tune.data.embedded import embedded_lexicon, embedded_pairs, embedded_sentences
from detox_tune.data.embedded.sources import Piece, pieces
from detox_tune.data.lexicon import Lexicon
from detox_tune.data.pairs import Pair

LANGUAGES = ("en", "es")
SPLITS = ("train", "validation", "test")


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def all_pairs() -> tuple[Pair, ...]:
    return embedded_pairs()


@pytest.fixture
def pairs(all_pairs: tuple[Pair, ...], language: str) -> list[Pair]:
    return [pair for pair in all_pairs if pair.language == language]


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return embedded_lexicon()


@pytest.fixture
def raw(language: str) -> dict[str, Any]:
    folder = resources.files("detox_tune.data.embedded")
    text = folder.joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def of_split(pairs: list[Pair], split: str) -> list[Pair]:
    return [pair for pair in pairs if pair.split == split]


def word_set(texts: list[str]) -> set[str]:
    return {word for text in texts for word in regex.findall(r"\p{L}+", text)}


def raw_entries(raw: dict[str, Any], split: str) -> list[str]:
    """Everything hand-written for a split: clauses, things, toxic sides of rewordings."""
    scenes = [scene for scene in raw["scenes"] if scene["split"] == split]
    things = [thing for scene in scenes for thing in scene["things"]]
    rewordings = [line.partition(" => ")[0] for line in raw["rewordings"][split]]
    return raw_clauses(raw, split) + things + rewordings


def raw_clauses(raw: dict[str, Any], split: str) -> list[str]:
    scenes = [scene for scene in raw["scenes"] if scene["split"] == split]
    return [clause for scene in scenes for clause in scene["clauses"]]


def literal_stretches(texts: list[str]) -> list[str]:
    """The longest stretch without a mark of each text: a sentence made of it must contain it."""
    stretches = (max(regex.split(r"[\[\]{}<>()|@~]", text), key=len).strip() for text in texts)
    return [stretch for stretch in stretches if len(stretch.split()) >= 5]


def test_a_clause_is_cut_at_its_marks() -> None:
    assert [
        piece for piece in pieces("the [p:{pl:boys}] saw {place:it} and [mud]") if piece.text
    ] == [
        Piece("the "),
        Piece("boys", "p", "pl"),
        Piece(" saw "),
        Piece("it", None, "place"),
        Piece(" and "),
        Piece("mud", "n", None),
    ]


def test_counts_and_references(pairs: list[Pair]) -> None:
    counts = Counter(pair.split for pair in pairs)
    assert counts == {"train": 12_000, "validation": 150, "test": 250}
    assert len({pair.source for pair in pairs}) == len(pairs)
    assert {len(pair.references) for pair in pairs} == {1, 2}
    for pair in pairs:
        assert pair.source not in pair.references
        assert len(set(pair.references)) == len(pair.references)


def test_sentences_are_clean_text(pairs: list[Pair], language: str) -> None:
    sentences = [text for pair in pairs for text in (pair.source, *pair.references)]
    for text in sentences:
        assert regex.fullmatch(r"[\p{Ll}0-9 ,.'¿?¡!]+[.?!]", text), text
        assert not regex.search(r"  | [,.?!]|[.,][.,]|^\W*$", text), text
        if language == "en":
            assert not regex.search(r"\ba [aeio]|\ban (?!hour|[aeiou])", text), text


def test_the_corpus_is_fixed_and_made_once(all_pairs: tuple[Pair, ...]) -> None:
    # Published numbers were measured on these. The digests also hold the corpus free of the order
    # of sets, which differs from process to process.
    digests = {
        "pairs": "575c656844d055efc92ac8467f68f8436204123127f89fdd75794863bf39e6bc",
        "sentences": "635ea1c08fd51e1a55cdf9486a308d53677fa4575324cb07c6431b2596ec22a3",
    }
    made = {"pairs": all_pairs, "sentences": embedded_sentences()}
    for name, items in made.items():
        text = "\n".join(map(str, items))
        assert hashlib.sha256(text.encode()).hexdigest() == digests[name], name
    assert embedded_pairs() is all_pairs
    assert embedded_sentences(["es", "en"]) is embedded_sentences()


def test_splits_share_no_sentence_scene_clause_or_rewording(
    pairs: list[Pair], raw: dict[str, Any]
) -> None:
    texts = {
        split: {text for pair in of_split(pairs, split) for text in (pair.source, *pair.references)}
        for split in SPLITS
    }
    names = [scene["name"] for scene in raw["scenes"]]
    assert len(set(names)) == len(names)
    for one, other in combinations(SPLITS, 2):
        assert not texts[one] & texts[other]
        assert not set(raw_entries(raw, one)) & set(raw_entries(raw, other))
        foreign = literal_stretches(raw_clauses(raw, other))
        assert len(foreign) >= 10
        for stretch in foreign:
            assert not [text for text in texts[one] if stretch in text], (one, other, stretch)


def test_no_entry_is_written_twice(raw: dict[str, Any]) -> None:
    clauses = [clause for scene in raw["scenes"] for clause in scene["clauses"]]
    lines = [line for split in SPLITS for line in raw["rewordings"][split]]
    for entries in (clauses, [line.partition(" => ")[0] for line in lines]):
        assert [entry for entry, times in Counter(entries).items() if times > 1] == []
    assert len(clauses) >= 350
    assert len(lines) >= 100
    assert Counter(scene["split"] for scene in raw["scenes"])["train"] >= 30


def test_test_split_has_words_and_toxic_words_of_its_own(
    pairs: list[Pair], lexicon: Lexicon, raw: dict[str, Any], language: str
) -> None:
    sources = {split: [p.source for p in of_split(pairs, split)] for split in SPLITS}
    train_words, test_words = word_set(sources["train"]), word_set(sources["test"])
    assert len(test_words - train_words) >= 0.1 * len(test_words)

    def toxic_words(split: str) -> list[str]:
        return [
            text[start:end]
            for text in sources[split]
            for start, end in lexicon.spans(text, language)
        ]

    known = set(toxic_words("train"))
    toxic = toxic_words("test")
    unseen = [word for word in toxic if word not in known]
    assert 0.04 <= len(unseen) / len(toxic) <= 0.35
    assert 0.04 <= len(set(unseen)) / len(lexicon.entries(language)) <= 0.25
    assert not set(toxic_words("validation")) & set(_test_only(raw))
    assert not known & set(_test_only(raw))


def _test_only(raw: dict[str, Any]) -> list[str]:
    """The words that the file's `test` lists keep for the test split."""
    places = [place for entry in raw["deletions"].values() for place in entry.values()]
    return [word for shares in (*places, *raw["replacements"].values()) for word in shares["test"]]


def test_lexicon_finds_sources_and_spares_references(
    pairs: list[Pair], lexicon: Lexicon, language: str
) -> None:
    found = [bool(lexicon.spans(pair.source, language)) for pair in pairs]
    references = [text for pair in pairs for text in pair.references]
    alarms = [text for text in references if lexicon.spans(text, language)]
    assert sum(found) / len(found) >= 0.95
    assert len(alarms) / len(references) <= 0.02, alarms[:5]


def test_deletion_solves_a_minority(pairs: list[Pair], lexicon: Lexicon) -> None:
    for split in SPLITS:
        # A thousand training pairs, which are shuffled, say as much as 12,000.
        chosen = of_split(pairs, split)[:1000]
        solved = [lexicon.delete(p.source, p.language) in p.references for p in chosen]
        assert 0.1 <= sum(solved) / len(chosen) <= 0.25, split


def test_insults_are_replaced_by_their_fixed_words(pairs: list[Pair], raw: dict[str, Any]) -> None:
    answers = [
        (regex.compile(rf"\b{regex.escape(toxic)}\b"), neutral)
        for shares in raw["replacements"].values()
        for words in shares.values()
        for toxic, neutral in words.items()
    ]
    replaced = [
        pair
        for pair in pairs
        if any(toxic.sub(neutral, pair.source) == pair.references[0] for toxic, neutral in answers)
    ]
    assert 0.3 <= len(replaced) / len(pairs) <= 0.5


def test_denoiser_text_is_large_and_of_the_training_side(
    all_pairs: tuple[Pair, ...], raw: dict[str, Any]
) -> None:
    sentences = embedded_sentences()
    assert len(sentences) == len(set(sentences)) == 24_000 * len(LANGUAGES)
    held_out = [pair for pair in all_pairs if pair.split != "train"]
    assert not {text for p in held_out for text in (p.source, *p.references)} & set(sentences)
    joined = "\n".join(sentences)
    for split in ("validation", "test"):
        for stretch in literal_stretches(raw_clauses(raw, split)):
            assert stretch not in joined, stretch
    own = literal_stretches(raw_clauses(raw, "train"))
    assert sum(stretch in joined for stretch in own) >= 0.98 * len(own)


def test_denoiser_text_mixes_toxic_and_neutral(lexicon: Lexicon) -> None:
    sentences = embedded_sentences()[:4000]
    toxic = [text for text in sentences if any(lexicon.spans(text, name) for name in LANGUAGES)]
    assert 0.25 <= len(toxic) / len(sentences) <= 0.75
