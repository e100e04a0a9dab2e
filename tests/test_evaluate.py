"""python -m detox_tune.evaluate, from files to a table and JSON."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from detox_tune.config import TrialConfig
from detox_tune.data.embedded import embedded_lexicon, embedded_pairs
from detox_tune.data.pairs import Pair
from detox_tune.errors import UserError
from detox_tune.evaluate import main
from detox_tune.evaluation.references import load_references
from detox_tune.evaluation.scores import SCORES, sentence_chrf
from detox_tune.evaluation.submission import load_outputs
from detox_tune.evaluation.system_outputs import system_names

PAIRS = [*embedded_pairs()[:30], *embedded_pairs()[-30:]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with references, a lexicon for one of their two languages, and two submissions."""
    write_jsonl(tmp_path / "references.jsonl", PAIRS)
    (tmp_path / "lexicons").mkdir()
    entries = sorted(embedded_lexicon().entries("en"))
    (tmp_path / "lexicons" / "en.txt").write_text("\n".join(entries))
    lines = ["toxic_sentence\tneutral_sentence\tlang"]
    lines += [f"{pair.source}\t{pair.references[0]}\t{pair.language}" for pair in PAIRS]
    (tmp_path / "human.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    copies = [f"<extra_id_0> {pair.source}" for pair in PAIRS]
    (tmp_path / "copies.txt").write_text("\n".join(copies) + "\n", encoding="utf-8")
    return tmp_path


def write_jsonl(path: Path, pairs: Sequence[Pair]) -> None:
    rows = [
        {"toxic_sentence": p.source, "neutral_sentence": list(p.references), "lang": p.language}
        for p in pairs
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(files: Path, *arguments: str) -> dict[str, Any]:
    given = [str(files / a) if (files / a).exists() else a for a in arguments]
    out = files / "out.json"
    reference = str(files / "references.jsonl")
    assert main([*given, "--reference", reference, "--json", str(out)]) == 0
    return flat(json.loads(out.read_text()))


def flat(result: dict[str, Any]) -> dict[str, Any]:
    """The scores of the only system beside the rest."""
    (system,) = result["systems"].values()
    return {**result, **system}


def test_a_file_of_outputs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(files, "--submission", "human.tsv", "--lexicon", "lexicons")
    assert set(result["languages"]) == {"en", "es"}
    assert result["overall"]["n"] == 60
    for scores in (result["overall"], *result["languages"].values()):
        assert set(scores) == {"n", *SCORES}
        for name in SCORES:
            if scores[name]["value"] is not None:
                assert scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"]
    # the submission is the first reference, and scores as that does
    assert result["overall"] == result["baselines"]["reference"]["overall"]
    assert result["overall"]["fl"]["value"] == 1.0
    assert result["languages"]["en"]["edit_recall"]["value"] == 1.0
    assert set(result["mean_of_languages"]) == {"j", "j_2025"}
    assert result["scorers"]["name"] == "embedded"
    assert result["scorers"]["models"] == {}
    assert result["scorers"]["sta"].startswith("fitted on the other folds")
    assert [row["language"] for row in result["scorers"]["held_out"]] == ["en", "es"]
    assert result["settings"]["seed"] == 0
    # delete has words for one language only
    assert set(result["baselines"]) == {"duplicate", "delete", "reference"}
    assert list(result["baselines"]["delete"]["languages"]) == ["en"]
    assert "overall" not in result["baselines"]["delete"]
    printed = capsys.readouterr().out
    assert "delete: left out for es" in printed
    assert all(name in printed for name in ("system", "duplicate", "reference", "j_2025"))


def test_copies_are_seen_and_score_as_the_duplicate(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(files, "--submission", "copies.txt")
    assert result["overall"]["copy_rate"]["value"] == 1.0
    assert result["overall"]["exact_copy_rate"]["value"] == 1.0
    duplicate = result["baselines"]["duplicate"]["overall"]
    assert result["overall"]["j"] == duplicate["j"]
    assert duplicate["j"]["value"] < result["baselines"]["reference"]["overall"]["j"]["value"]
    assert "delete" not in result["baselines"]
    assert "delete: left out, it needs a --lexicon" in capsys.readouterr().out


def test_an_echo_of_the_task_prefix_is_seen(files: Path) -> None:
    copies = (files / "copies.txt").read_text(encoding="utf-8").splitlines()
    for name, prefix in (("echo", "detoxify: "), ("other", "rewrite: ")):
        text = "".join(f"{prefix}{copy}\n" for copy in copies)
        (files / f"{name}.txt").write_text(text, encoding="utf-8")
    by_default = run(files, "--submission", "echo.txt")
    assert by_default["overall"]["copy_rate"]["value"] == 1.0
    assert by_default["settings"]["task_prefix"] == {"system": "detoxify: "}
    named = run(files, "--submission", "other.txt", "--task-prefix", "rewrite: ")
    assert named["overall"]["copy_rate"]["value"] == 1.0


def test_the_same_twice_and_one_language_alone(files: Path) -> None:
    arguments = ["--submission", "human.tsv", "--language", "es", "--seed", "3"]
    first, second = run(files, *arguments), run(files, *arguments)
    assert first == second
    assert list(first["languages"]) == ["es"]
    assert first["overall"]["n"] == 30


def test_sta_from_other_pairs_or_labelled_texts(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(files / "train.jsonl", embedded_pairs()[100:200])
    arguments = ("--submission", "human.tsv", "--language", "en")
    result = run(files, *arguments, "--train-pairs", "train.jsonl")
    assert result["scorers"]["sta"].startswith("fitted on 100 pairs; 0 left out")
    rows = [(pair.source, 1) for pair in embedded_pairs()[100:200]]
    rows += [(pair.references[0], 0) for pair in embedded_pairs()[100:200]]
    labelled = "".join(f"{text}\t{toxic}\ten\n" for text, toxic in rows)
    (files / "labelled.tsv").write_text("text\ttoxic\tlang\n" + labelled + "what?\t7\ten\n")
    result = run(files, *arguments, "--toxicity-data", "labelled.tsv")
    assert [row["language"] for row in result["scorers"]["held_out"]] == ["en"]
    assert "labelled texts" in result["scorers"]["sta"]
    assert result["settings"]["labelled_rows_dropped"] == 1
    printed = capsys.readouterr().out
    assert "embedded STA on held-out texts (not the official model)" in printed
    assert "not 0 or 1" in printed


def test_outputs_are_written_in_the_other_form(files: Path) -> None:
    first = run(files, "--submission", "copies.txt", "--write-outputs", str(files / "o.tsv"))
    second = run(files, "--submission", "o.tsv", "--write-outputs", str(files / "o.jsonl"))
    third = run(files, "--submission", "o.jsonl")
    assert first["overall"] == second["overall"] == third["overall"]


TEXTS = [
    ('"Really? "pal" %d ', '"Really? "friend" %d '),
    ('he said "damn %d" and left', 'he said "well %d" and left'),
    ("the damn tram\nis %d minutes late", "the tram\nis %d minutes late"),
    ("no quotes, damn %d", "no quotes, %d"),
]
PERFECT = [(toxic % n, neutral % n) for n in range(10) for toxic, neutral in TEXTS]


def table(columns: str, rows: Sequence[Sequence[object]], quoting: Any = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", quoting=quoting, lineterminator="\n")
    writer.writerows([columns.split(), *rows])
    return text.getvalue()


def jsonl(columns: str, rows: Sequence[Sequence[object]]) -> str:
    return "".join(
        json.dumps(dict(zip(columns.split(), row, strict=True)), ensure_ascii=False) + "\n"
        for row in rows
    )


def as_published() -> dict[str, tuple[str, str]]:
    """By the name of a reference file: its content, in the dialect of a published data set."""
    numbered = [(n, *pair) for n, pair in enumerate(PERFECT)]
    russian = [(n, toxic, neutral, "", "") for n, toxic, neutral in numbered]
    languages = [(toxic, neutral, "en") for toxic, neutral in PERFECT]
    russian_columns = "index ru_toxic_comment ru_neutral_comment1 ru_neutral_comment2 "
    return {
        "paradetox_en.tsv": ("en", table("en_toxic_comment en_neutral_comment", PERFECT)),
        "train_ru.tsv": ("ru", table(f"{russian_columns} ru_neutral_comment3", russian)),
        "pan.tsv": ("en", table("toxic_sentence neutral_sentence lang", languages, csv.QUOTE_ALL)),
        "pan.jsonl": ("en", jsonl("toxic_sentence neutral_sentence lang", languages)),
    }


@pytest.mark.parametrize("reference", as_published())
@pytest.mark.parametrize("submission", ["perfect.tsv", "id_text.tsv", "perfect.jsonl", "own.tsv"])
def test_a_perfect_submission_in_published_dialects(
    files: Path, reference: str, submission: str
) -> None:
    language, content = as_published()[reference]
    (files / reference).write_text(content, encoding="utf-8")
    named = [(n, toxic, neutral, language) for n, (toxic, neutral) in enumerate(PERFECT)]
    texts = [(n, neutral) for n, (_, neutral) in enumerate(PERFECT)]
    contents = {
        "perfect.tsv": table("id toxic_sentence neutral_sentence lang", named),
        "id_text.tsv": table("id text", texts),
        "perfect.jsonl": jsonl("id toxic_sentence neutral_sentence lang", named),
        "own.tsv": table(f"{language}_toxic_comment {language}_neutral_comment", PERFECT),
    }
    (files / submission).write_text(contents[submission], encoding="utf-8")
    references = load_references(str(files / reference))
    assert [pair.source for pair in references.pairs] == [" ".join(s.split()) for s, _ in PERFECT]
    assert references.loaded.bad_rows == ()
    outputs = load_outputs(files / submission, references)
    texts_out = [outputs[pair.language, pair.source] for pair in references.pairs]
    fl = sentence_chrf(texts_out, [pair.references for pair in references.pairs])
    assert list(fl) == [1.0] * len(PERFECT)


@pytest.mark.parametrize("submission", ["sub_for_quoted.tsv", "sub_for_quoted.jsonl"])
def test_quoted_references_and_submissions(
    shared_data: Path, tmp_path: Path, submission: str
) -> None:
    cases = shared_data.parent / "cases"
    arguments = ["--reference", str(cases / "ref_quoted_en.tsv"), "--json", str(tmp_path / "o")]
    assert main(["--submission", str(cases / submission), *arguments]) == 0
    assert flat(json.loads((tmp_path / "o").read_text()))["overall"]["fl"]["value"] == 1.0


def test_columns_and_quoting_as_the_errors_name_them(files: Path) -> None:
    rows = [(p.source, p.references[0], f"{p.language}-XX") for p in PAIRS]
    (files / "references.jsonl").unlink()
    (files / "other.tsv").write_text(
        "bad\tgood\tcode\n" + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8"
    )
    arguments = ["--reference", str(files / "other.tsv"), "--submission", str(files / "human.tsv")]
    with pytest.raises(UserError, match="set source_column to one of them"):
        main(arguments)
    arguments += ["--source-column", "bad"]
    with pytest.raises(UserError, match="set reference_columns to one of them"):
        main(arguments)
    arguments += ["--reference-columns", "good"]
    with pytest.raises(UserError, match="call its column of codes `language`, or choose one"):
        main(arguments)
    arguments += ["--language-column", "code", "--quoting", "plain", "--json", str(files / "o")]
    assert main(arguments) == 0
    result = flat(json.loads((files / "o").read_text()))
    assert result["overall"]["fl"]["value"] == 1.0
    assert result["settings"]["reference_columns"] == ["good"]


def test_rows_that_give_no_pair_are_reported(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (files / "references.jsonl").open("a") as file:
        file.write('{"toxic_sentence": "fine", "neutral_sentence": ["fine"], "lang": "en"}\n')
    with (files / "copies.txt").open("a") as file:
        file.write("fine\n")
    result = run(files, "--submission", "copies.txt")
    assert result["overall"]["n"] == 60
    assert result["settings"]["rows_dropped"] == 1
    assert "source equals reference" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to score: give --submission, --adapter or --model"),
        (["--submission", "x", "y", "--write-outputs", "o.tsv"], "holds one system, but 2 are"),
        (["--submission", "x", "--model", "x"], "x is given twice: leave one of them out"),
        (["--submission", "gone.tsv"], "gone.tsv: no such file"),
        (["--submission", "human.tsv", "--write-outputs", "x.txt"], "x.txt: outputs are written"),
        (["--submission", "human.tsv", "--language", "fr"], "language 'fr'"),
        (["--adapter", "lexicons"], "is no adapter: the file adapter_config.json must be there"),
        (["--submission", "human.tsv", "--json", "human.tsv/x"], "cannot be written (not a dir"),
        (["--submission", "human.tsv", "--json", "lexicons"], "cannot be written (it is a folder"),
        (
            ["--submission", "human.tsv", "--scorers", "official", "--train-pairs", "human.tsv"],
            "leave one of them out",
        ),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(
    files: Path, arguments: list[str], message: str
) -> None:
    command = [sys.executable, "-m", "detox_tune.evaluate", "--reference", "references.jsonl"]
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [*command, *arguments],
        cwd=files,
        env={"PYTHONPATH": root, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_adapter(files: Path, tiny_base: Path) -> None:
    """An untrained adapter: a real folder as a search exports it."""
    from detox_tune.model.base import load_base
    from detox_tune.model.lora import add_lora

    base, _ = load_base(str(tiny_base), quantization="none", device="cpu")
    model = add_lora(base, TrialConfig(lora="first"), seed=0)
    model.save_pretrained(str(files / "best"))
    metrics = {"quantization": "none", "settings": {"task_prefix": "detoxify: "}, "max_tokens": 24}
    (files / "best" / "metrics.json").write_text(json.dumps(metrics))
    arguments = ("--base-model", str(tiny_base), "--write-outputs", str(files / "o.tsv"))
    result = run(files, "--adapter", "best", *arguments)
    assert result["overall"]["n"] == 60
    again = run(files, "--submission", "o.tsv")
    assert again["overall"] == result["overall"]
    assert len((files / "o.tsv").read_text(encoding="utf-8").splitlines()) == 61


def test_no_two_systems_and_no_baseline_share_a_name() -> None:
    paths = ["a/out.tsv", "b/out.tsv", "other.tsv", "old/delete", "reference", "runs/x/best"]
    names = [*system_names(paths)]
    assert names == ["a/out.tsv", "b/out.tsv", "other.tsv", "old/delete", "./reference", "x"]


def test_several_systems_and_how_sure_their_order_is(
    files: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same file twice, copies and a whole checkpoint, each scored as it is alone."""
    (files / "again").mkdir()
    (files / "again" / "human.tsv").write_bytes((files / "human.tsv").read_bytes())
    human, again, copies = (str(files / f) for f in ("human.tsv", "again/human.tsv", "copies.txt"))
    out = files / "out.json"
    reference = ["--reference", str(files / "references.jsonl"), "--json", str(out)]
    model = ["--model", str(tiny_base)]
    assert main(["--submission", human, again, copies, *model, *reference]) == 0
    result = json.loads(out.read_text())
    assert list(result["systems"]) == [human, again, "copies.txt", tiny_base.name]
    for name, alone in ((human, ("--submission", human)), (tiny_base.name, tuple(model))):
        assert result["systems"][name]["overall"] == run(files, *alone)["overall"]
    same, worse, _ = result["differences"]
    assert (same["system"], same["than"]) == (again, human)
    assert same["value"] == same["low"] == same["high"] == 0
    assert worse["low"] < worse["value"] < worse["high"] < 0
    printed = capsys.readouterr().out
    assert f"j of copies.txt less that of {human}: -" in printed
    assert f"{tiny_base.name}: " in printed  # an untrained model never ends
    assert "outputs were cut off at" in printed
