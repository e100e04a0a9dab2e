"""Tables of folders and of the hub, and the language of each row."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detox_tune.data.file_formats import Row
from detox_tune.data.pairs import Pair, load_pairs
from detox_tune.data.readers import (
    LANGUAGES,
    LEXICON_SUFFIXES,
    Table,
    files_in,
    is_hub_name,
    language_files,
    read_hub,
    row_languages,
    shown,
    stem_language,
)
from detox_tune.errors import UserError


def test_hub_splits_become_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a hub repository is laid out: one file per split under data/.
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        rows = pa.table({"toxic": [f"{split} idiot"], "neutral": pa.nulls(1, pa.string())})
        pq.write_table(rows, tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tables = read_hub(str(tmp_path / "set"))
    assert {(table.file, table.stem, table.columns, *table.rows) for table in tables} == {
        (f"{tmp_path}/set[{split}]", split, ("toxic", "neutral"), Row(0, (f"{split} idiot", None)))
        for split in ("train", "test")
    }


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'o/n' doesn't exist\non the Hub"),
        ConnectionError("Couldn't reach 'o/n' on the Hub"),
        ValueError("Config name is missing."),
        RuntimeError("Dataset scripts are no longer supported"),
    ],
)
def test_hub_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"o/n: neither .* check the name and the conn") as caught:
        read_hub("o/n")
    assert "\n" not in str(caught.value)
    assert str(error).partition("\n")[0] in str(caught.value)


def hub(monkeypatch: pytest.MonkeyPatch, splits: dict[str, dict[str, list[Any]]]) -> None:
    made = {name: datasets.Dataset.from_dict(columns) for name, columns in splits.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(made))


def test_a_hub_data_set_whose_splits_are_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    english: dict[str, list[Any]] = {
        "toxic_sentence": ["a b", "c"],
        "neutral_sentence": ["a", None],
    }
    german = {"toxic_sentence": ["d e"], "neutral_sentence": ["d"]}
    hub(monkeypatch, {"en": english, "de": german})
    loaded = load_pairs("textdetox/multilingual_paradetox", allow_bad_rows=True)
    assert loaded.pairs == (Pair("a b", ("a",), "en"), Pair("d e", ("d",), "de"))
    assert str(loaded.bad_rows[0]) == "textdetox/multilingual_paradetox[en]:1: missing reference: c"
    only = load_pairs("textdetox/multilingual_paradetox", languages=["de"])
    assert ([pair.language for pair in only.pairs], only.n_rows) == (["de"], 1)
    with pytest.raises(UserError, match=r"language 'fr': .* has no pairs for it; valid: de, en"):
        load_pairs("textdetox/multilingual_paradetox", languages=["fr"], allow_bad_rows=True)


def test_other_splits_of_a_hub_data_set_are_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"en_toxic_comment": ["a b"], "en_neutral_comment": ["a"]}
    more = {"en_toxic_comment": ["a b"], "en_neutral_comment": ["b"]}
    hub(monkeypatch, {"train": columns, "test": more})
    assert load_pairs("s-nlp/paradetox", languages=["en"]).pairs == (Pair("a b", ("a", "b"), "en"),)
    with pytest.raises(UserError, match=r"s-nlp/paradetox\[train\]: its language is not known"):
        load_pairs("s-nlp/paradetox")


def test_a_folder_that_exists_comes_before_a_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "en.tsv").write_text("toxic\tneutral\nyou idiot\tyou\n")
    monkeypatch.chdir(tmp_path)
    assert load_pairs("owner/name").pairs == (Pair("you idiot", ("you",), "en"),)


def test_hub_names() -> None:
    assert all(map(is_hub_name, ["textdetox/multilingual_paradetox", "s-nlp/paradetox"]))
    paths = ["data/pairs.tsv", "./owner/name", "../name", "name", "/owner/name", "a/b/c"]
    assert not any(map(is_hub_name, paths))


def test_languages_of_names() -> None:
    known = {"en": "en", "EN": "en", "paradetox_en": "en", "hin": "hin", "zh-train": "zh"}
    regions = {"zh-cn": "zh", "zh_TW": "zh", "zh-Hans-CN": "zh", "es-AR": "es", "my-en": "en"}
    regions |= {"paradetox_en-UK": "en", "new-de": "de", "pt-BR": "pt", "th": "th", "my": "my"}
    known |= regions
    unknown = dict.fromkeys(["english", "train", "the_it_list", ""])
    for stem, language in {**known, "uk.v2": "uk", **unknown}.items():
        assert stem_language(stem) == language, stem


def table(columns: dict[str, list[Any]], stem: str = "x") -> Table:
    rows = enumerate(zip(*columns.values(), strict=True))
    return Table(f"{stem}.tsv", stem, tuple(columns), [Row(*row) for row in rows])


def test_language_of_rows_column_then_name_then_the_only_choice() -> None:
    by_column = table({"a": ["1", "2", "3"], "Lang": ["EN-us ", "de", None]}, stem="ru")
    assert row_languages(by_column, ["uk"]) == ["en", "de", None]
    assert row_languages(by_column, (), "Lang") == ["en", "de", None]
    assert row_languages(table({"a": ["1"]}, stem="pairs_ru"), ["uk"]) == ["ru"]
    assert row_languages(table({"a": ["1"]}), ["uk"]) == ["uk"]
    for languages in ((), ("en", "de")):
        with pytest.raises(UserError, match="its language is not known; name it by its code"):
            row_languages(table({"a": ["1"]}), languages)


def test_files_of_a_folder_by_language(tmp_path: Path) -> None:
    hidden = ["._en.txt", ".en.csv", "~$en.csv"]
    for name in ("en.txt", "more_en.csv", "ru.parquet", "README.md", "notes.txt", *hidden):
        (tmp_path / name).write_text("x")
    (tmp_path / "de.txt").mkdir()
    found = language_files(tmp_path, LEXICON_SUFFIXES)
    assert {language: [path.name for path in paths] for language, paths in found.items()} == {
        "en": ["en.txt", "more_en.csv"],
        "ru": ["ru.parquet"],
    }
    with pytest.raises(UserError, match=r"the folder has no \.json file; put one there"):
        files_in(tmp_path, (".json",))


def test_shown_text_is_short_and_visible() -> None:
    assert shown("a\tb\udce9\x07") == "a\\tb\\udce9\\x07"
    assert shown("x" * 60) == "x" * 60
    assert shown("x" * 61) == "x" * 59 + "…"


def test_language_codes_are_those_of_the_lexicons(shared_data: Path) -> None:
    names = {path.stem for path in (shared_data / "multilingual_toxic_lexicon").iterdir()}
    assert set(LANGUAGES) == names
