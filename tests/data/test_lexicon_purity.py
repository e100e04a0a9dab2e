from detox_tune.data.lexicon import Lexicon
from detox_tune.data.lexicon_purity import ordinary_words
from detox_tune.data.pairs import Pair

LEXICON = Lexicon({"en": ["god", "damn", "hell", "son-of-a-gun"], "es": ["dios"]})


def pairs(source: str, *references: str, times: int = 1, language: str = "en") -> list[Pair]:
    return [Pair(f"{source} {n}", references, language) for n in range(times)]


def test_an_entry_that_references_mostly_keep_is_an_ordinary_word() -> None:
    data = [
        *pairs("oh god you damn fool", "oh god you fool", times=5),
        *pairs("go to hell", "go to hell then", times=4),
        *pairs("a son - of - a - gun", "that son-of-a-gun", times=5),
        *pairs("por dios", "por dios ya", times=5, language="es"),
    ]
    found = ordinary_words(LEXICON, data, purity=0.5)
    # five finds, all kept; hell has four, too few to say so, and damn is always dropped
    assert found == {"en": {"god", "sonofagun"}, "es": {"dios"}}
    assert LEXICON.without(found).entries("en") == {"damn", "hell"}
    assert LEXICON.without(found).spans("oh god, damn", "en") == [(8, 12)]
    assert ordinary_words(LEXICON, data, purity=0.0) == {}


def test_each_reference_has_a_say() -> None:
    data = pairs("god is great", "he is great", "god is great indeed", times=9)
    assert ordinary_words(LEXICON, data, purity=0.5) == {}  # dropped in 9 of 18
    assert ordinary_words(LEXICON, data, purity=0.9) == {"en": {"god"}}
