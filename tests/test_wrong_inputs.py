"""What a user can get wrong: each mistake is one line, exit code 2, and nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GPT2Config

from detox_tune import rewrite, search
from detox_tune.cli import run_command

SPACE = "data: pairs.jsonl\nbase_model: base\ntrials: 1\nsteps: 4\neval_every: 2\ngrace_steps: 2\n"
TRIAL = "trial: {gamma: 0.0}\n"
EN_TSV = ["space.yaml", "--data", "en.tsv"]


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path, pairs_file: Path
) -> Path:
    """A working directory in which `search space.yaml` would run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "base").symlink_to(tiny_base)
    (tmp_path / "pairs.jsonl").symlink_to(pairs_file)
    write("space.yaml", SPACE + TRIAL)
    return tmp_path


def write(name: str, text: str | bytes) -> None:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def nothing() -> None:
    """For mistakes that lie in the flags alone."""


def space(text: str) -> Callable[[], None]:
    return lambda: write("space.yaml", text)


def data(text: str | bytes) -> Callable[[], None]:
    return lambda: write("en.tsv", text)


def pairs_tsv(good: int, bad: int) -> str:
    rows = [f"the {i} damn buses are late\tthe {i} buses are late" for i in range(good)]
    return "\n".join(["toxic\tneutral", *rows, *["no neutral side\t"] * bad])


def another_architecture() -> None:
    Path("gpt").mkdir()
    GPT2Config(n_layer=1).save_pretrained("gpt")


def occupied_run() -> None:
    Path("results/mine").mkdir(parents=True)
    write("results/mine/search.json", "{}")


MISTAKES: dict[str, tuple[Callable[[], None], list[str], str]] = {
    # YAML
    "no such space": (nothing, ["spce.yaml"], "spce.yaml: no such file; spaces there: space.yaml"),
    "not YAML": (space("trials: ["), ["space.yaml"], "space.yaml:1: not valid YAML"),
    "a key twice": (space("trials: 1\ntrials: 2"), ["space.yaml"], "'trials' stands twice"),
    "unknown setting": (space("trails: 1"), ["space.yaml"], "did you mean 'trials'?"),
    "unknown trial setting": (
        space(SPACE + "trial: {gama: 1}"),
        ["space.yaml"],
        "'gama' is not a setting of a trial; did you mean 'gamma'?",
    ),
    "unread setting": (
        space(SPACE + "trial: {context_window: 3}"),
        ["space.yaml"],
        "context_window=3 is only read with mask_strategy toxic_context",
    ),
    "bounds swapped": (
        space(SPACE + "trial: {gamma: {range: [2, 1]}}"),
        ["space.yaml"],
        "gamma has the range [2, 1], but the lower bound must be below the upper one",
    ),
    "out of range": (space(SPACE + "trial: {gamma: -1}"), ["space.yaml"], "gamma=-1: input should"),
    "too few steps to report": (
        nothing,
        ["space.yaml", "--steps", "1"],
        "eval_every=2 must not exceed steps=1",
    ),
    # flags
    "unknown flag": (nothing, ["space.yaml", "--trails", "3"], "unrecognized arguments: --trails"),
    "not a number": (nothing, ["space.yaml", "--trials", "many"], "invalid int value: 'many'"),
    "no trials": (nothing, ["space.yaml", "--trials", "0"], "trials=0: input should be greater"),
    "a name with a path": (nothing, ["space.yaml", "--name", "a/b"], "name='a/b': string should"),
    "a run that exists": (
        occupied_run,
        ["space.yaml", "--name", "mine"],
        "results/mine exists already: choose another --name or --out",
    ),
    "a GPU that is not there": (
        nothing,
        ["space.yaml", "--gpus-per-trial", "1"],
        "gpus_per_trial=1, but this machine has 0 GPUs",
    ),
    "a Ray client": (nothing, ["space.yaml", "--address", "ray://x:1"], "--address auto"),
    "no cluster": (
        nothing,
        ["space.yaml", "--address", "127.0.0.1:1"],
        "address='127.0.0.1:1': no Ray cluster answers there",
    ),
    # files
    "no such data": (nothing, ["space.yaml", "--data", "none.tsv"], "none.tsv: no such file"),
    "unknown columns": (data("a\tb\nx\ty\n"), EN_TSV, "it has 'a', 'b'; set source_column"),
    "not text": (data(b"toxic\tneutral\n\xff\xfe\tx\n" * 3), EN_TSV, "UTF-8"),
    "unknown language": (
        lambda: write("mine.tsv", pairs_tsv(good=20, bad=0)),
        ["space.yaml", "--data", "mine.tsv"],
        "mine.tsv: its language is not known; name it by its code",
    ),
    "too many bad rows": (data(pairs_tsv(good=20, bad=3)), EN_TSV, "3 of 23 rows are bad"),
    "too few pairs": (data(pairs_tsv(good=2, bad=0)), EN_TSV, "'en' has 2 different sentences"),
    "no lexicon for the language": (
        lambda: write("de.txt", "Trottel\n"),
        ["space.yaml", "--lexicon", "."],
        "language 'en': . has lexicons for de only",
    ),
    "no such lexicon": (
        nothing,
        ["space.yaml", "--lexicon", "words.txt"],
        "words.txt: no such file",
    ),
    "a penalty without toxic words": (
        space(SPACE + "trial: {gamma: 0.5}"),
        ["space.yaml"],
        "the lexicon is empty, and gamma cannot work: give a --lexicon with toxic words of en",
    ),
    # models
    "no such model": (
        nothing,
        ["space.yaml", "--base-model", "no/such-model"],
        "base_model='no/such-model' cannot be loaded",
    ),
    "a folder without a model": (
        lambda: Path("empty").mkdir(),
        ["space.yaml", "--base-model", "empty"],
        "is no checkpoint: the folder must hold config.json",
    ),
    "another architecture": (
        another_architecture,
        ["space.yaml", "--base-model", "gpt"],
        "is a gpt2 model, but must be of the T5 family",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, arguments, message = MISTAKES[mistake]
    make()
    before = contents(folder)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: search.main(arguments))
    lines = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2, lines
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:]
    assert message in errors[0]
    assert not any("Traceback" in line for line in lines)
    assert contents(folder) == before  # no half a run left behind


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def half_an_adapter(folder: Path) -> None:
    config = {"peft_type": "LORA", "target_modules": ["q"], "base_model_name_or_path": "base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def damaged_adapter(folder: Path) -> None:
    half_an_adapter(folder)
    (folder / "metrics.json").write_text(
        '{"quantization": "none", "max_tokens": 8, "settings": {"task_prefix": ""}}'
    )
    (folder / "adapter_model.safetensors").write_bytes(b"not weights")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is no exported adapter: adapter_config.json must be there"),
        (half_an_adapter, "is no exported adapter: metrics.json must be there"),
        (damaged_adapter, "cannot be loaded: its adapter must be whole"),
    ],
)
def test_a_wrong_adapter_is_one_line(
    make: Callable[[Path], None],
    message: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter = folder / "adapter"
    adapter.mkdir()
    make(adapter)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: rewrite.main([str(adapter), "hello"]))
    lines = capsys.readouterr().err.strip().splitlines()
    assert (exit_.value.code, len(lines)) == (2, 1)
    assert message in lines[0]
