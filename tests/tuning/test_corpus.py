"""What is read before a search: pairs, split, lexicon, and the sentences of a pocket base."""

from pathlib import Path

import pytest

from detox_tune.config import SearchConfig
from detox_tune.errors import UserError
from detox_tune.tuning.corpus import Corpus, denoising_sentences, load_corpus


def test_a_file_s_pairs_are_split_and_told(pairs_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    bad = '\n{"toxic": "same", "neutral": "same", "lang": "en"}\n'
    data.write_text(pairs_file.read_text(encoding="utf-8") + bad, encoding="utf-8")
    (tmp_path / "en.txt").write_text("damn\nidiot\n", encoding="utf-8")
    config = SearchConfig(name="x", data=str(data), lexicon=str(tmp_path / "en.txt"))
    *about_rows, about_pairs = load_corpus(config).report().splitlines()
    assert about_pairs == "pairs: 68 train, 4 validation, 8 test (en); lexicon: 2 entries"
    assert "source equals reference" in "\n".join(about_rows)
    silent = load_corpus(config.model_copy(update={"lexicon": None, "data": str(pairs_file)}))
    assert silent.report() == "pairs: 68 train, 4 validation, 8 test (en); lexicon: 0 entries"


def test_the_embedded_corpus_has_its_own_split_and_lexicon() -> None:
    corpus = load_corpus(SearchConfig(name="x", languages=("es",)))
    assert "12000 train, 150 validation, 250 test (es)" in corpus.report()
    assert corpus.lexicon.entries("es")
    with pytest.raises(UserError, match=r"no 'fr', only en, es: name one of these"):
        load_corpus(SearchConfig(name="x", languages=("fr",)))


def test_a_pocket_base_learns_from_training_sentences_alone(corpus: Corpus) -> None:
    sentences = denoising_sentences(SearchConfig(name="x", data="own"), corpus)
    splits = corpus.splits
    train = {text for pair in splits.train for text in (pair.source, *pair.references)}
    assert len(sentences) == len(set(sentences))
    assert set(sentences) == train
