"""What a user can get wrong: each mistake is one line, exit code 2, and nothing is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import ByT5Tokenizer, GPT2Config, T5Config, T5ForConditionalGeneration

import detox_tune.__main__ as commands
from detox_tune import rewrite, search
from detox_tune.cli import run_command

SPACE = "data: pairs.jsonl\nbase_model: base\ntrials: 1\nsteps: 4\neval_every: 2\ngrace_steps: 2\n"


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Path, pairs_file: Path
) -> Path:
    """A working directory in which `search space.yaml` would run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "base").symlink_to(tiny_base)
    (tmp_path / "pairs.jsonl").symlink_to(pairs_file)
    write("space.yaml", SPACE + "trial: {gamma: 0.0}")
    return tmp_path


def write(name: str, text: str | bytes) -> None:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def nothing() -> None:
    """For mistakes that lie in the flags alone."""


def no_space() -> None:
    Path("space.yaml").rename("other.yaml")


def space(text: str | bytes) -> Callable[[], None]:
    return lambda: write("space.yaml", text)


def trial(settings: str) -> Callable[[], None]:
    return space(f"{SPACE}trial: {{{settings}}}")


def data(text: str | bytes, name: str = "en.tsv") -> Callable[[], None]:
    return lambda: write(name, text)


def pairs_tsv(good: int, bad: int) -> str:
    rows = [f"the {i} damn buses are late\tthe {i} buses are late" for i in range(good)]
    return "\n".join(["toxic\tneutral", *rows, *["no neutral side\t"] * bad])


def another_architecture() -> None:
    Path("gpt").mkdir()
    GPT2Config(n_layer=1).save_pretrained("gpt")


def occupied_run() -> None:
    Path("results/mine").mkdir(parents=True)
    write("results/mine/search.json", "{}")


# What is wrong, how to make it so, the flags, and what the line says.
MISTAKES: dict[str, tuple[Callable[[], None], str, str]] = {
    # the space
    "no such space": (no_space, "", "space.yaml: no such file; spaces there: other.yaml"),
    "not YAML": (space("trials: ["), "", "space.yaml:1: not valid YAML"),
    "a key twice": (
        space("trials: 1\ntrials: 2"),
        "",
        "space.yaml:2: the key 'trials' stands twice",
    ),
    "a key that is a boolean": (
        space("on: 1"),
        "",
        "space.yaml:1: the key on is read as true or f",
    ),
    "a key of a trial that is a number": (trial("3: 1"), "", "the key 3 is read as a number, and"),
    "a key that is a list": (space("? [a]\n: 1"), "", "the key with brackets is read as a list"),
    "a number that is text": (
        trial("learning_rate: {choice: [1e-3, 2.5e4]}"),
        "",
        "space.yaml:7: YAML reads 1e-3 as text: write 1.0e-3 for the number",
    ),
    "a number in quotes": (trial("gamma: {choice: ['1']}"), "", "gamma='1' is text, and must be a"),
    "yes as a number": (space("trials: yes"), "", "trials=True: YAML reads yes, no, on and off as"),
    "yes as a number of a trial": (trial("gamma: on"), "", "gamma=True: YAML reads yes, no, on"),
    "no as a language": (space("languages: [no]"), "", "languages=False: YAML reads yes, no, on"),
    "endless": (trial("gamma: {range: [0.1, .inf]}"), "", "input should be a finite number"),
    "not a number": (trial("gamma: .nan"), "", "gamma=nan: input should be"),
    "no setting": (space("- a"), "", "space.yaml must map setting names to values"),
    "empty": (space(""), "", "space.yaml must map setting names to values"),
    "a character of no text": (
        space("trials: 1\n\0"),
        "",
        "space.yaml:2: the character 0x0 may not",
    ),
    "not UTF-8": (space(b"trials: \xe9"), "", "space.yaml is not UTF-8 text (byte 8)"),
    "a tab": (space("trial:\n\tgamma: 1"), "", "space.yaml:2: not valid YAML"),
    "unknown setting": (space("trails: 1"), "", "did you mean 'trials'?"),
    "unknown trial setting": (trial("gama: 1"), "", "'gama' is not a setting of a trial; did you"),
    "unread setting": (
        trial("context_window: 3"),
        "",
        "only read with mask_strategy toxic_context",
    ),
    "bounds swapped": (trial("gamma: {range: [2, 1]}"), "", "range [2, 1], but the lower bound"),
    "out of range": (trial("gamma: -1"), "", "gamma=-1: input should be greater"),
    # flags
    "too few steps": (nothing, "--steps 1", "eval_every=2 must not exceed steps=1"),
    "unknown flag": (nothing, "--trails 3", "unrecognized arguments: --trails"),
    "a word as a number": (nothing, "--trials many", "invalid int value: 'many'"),
    "more steps than counts": (nothing, f"--steps {'9' * 400}", "input should be less than"),
    "no trials": (nothing, "--trials 0", "trials=0: input should be greater"),
    "a name with a path": (nothing, "--name a/b", "name='a/b': string should"),
    "a run that exists": (
        occupied_run,
        "--name mine",
        "results/mine exists already: choose another",
    ),
    "no such folder can be made": (
        nothing,
        "--out /proc/x",
        "cannot be written (no such file or d",
    ),
    "a file as folder": (nothing, "--out pairs.jsonl", "cannot be written (not a directory)"),
    "a name too long": (nothing, f"--name {'a' * 300}", "cannot be written (file name too long)"),
    "no address": (nothing, "--address here", "address='here' must be `auto` or host:port"),
    "no such GPU": (nothing, "--gpus-per-trial 1", "gpus_per_trial=1, but this machine has 0 GPUs"),
    "a Ray client": (nothing, "--address ray://x:1", "--address auto"),
    "a dashboard": (nothing, "--address http://x:1", "is a dashboard: submit the command there"),
    "no cluster": (nothing, "--address 127.0.0.1:1", "'127.0.0.1:1': nothing answers there"),
    # files
    "no such data": (nothing, "--data none.tsv", "none.tsv: no such file"),
    "unknown columns": (data("a\tb\nx\ty\n"), "--data en.tsv", "has 'a', 'b'; set source_column"),
    "not text": (data(b"toxic\tneutral\n\xff\xfe\tx\n" * 3), "--data en.tsv", "not UTF-8"),
    "unknown language": (
        data(pairs_tsv(good=20, bad=0), "mine.tsv"),
        "--data mine.tsv",
        "mine.tsv: its language is not known; name it by its code",
    ),
    "bad rows": (data(pairs_tsv(good=20, bad=3)), "--data en.tsv", "3 of 23 rows are bad"),
    "too few pairs": (data(pairs_tsv(good=2, bad=0)), "--data en.tsv", "has 2 different sentences"),
    "another language": (
        data("Trottel\n", "de.txt"),
        "--lexicon .",
        "'en': . has no lexicon for it",
    ),
    "no such lexicon": (nothing, "--lexicon words.txt", "words.txt: no such file"),
    "a penalty without toxic words": (
        trial("gamma: 0.5"),
        "",
        "the lexicon is empty, and gamma cannot work: give a --lexicon with toxic words of en",
    ),
    # models
    "no such model": (
        nothing,
        "--base-model no/model",
        "base_model='no/model' cannot be loaded: it is no f",
    ),
    "no such model folder": (nothing, "--base-model ./no", "base_model='./no' is no checkpoint"),
    "no model in it": (
        lambda: Path("empty").mkdir(),
        "--base-model empty",
        "must hold config.json",
    ),
    "another architecture": (
        another_architecture,
        "--base-model gpt",
        "is a gpt2 model, but must be of the T5 family",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    mistake: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, flags, message = MISTAKES[mistake]
    make()
    before = contents(folder)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: search.main(["space.yaml", *flags.split()]))
    lines = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2, lines
    errors = [line for line in lines if line.startswith("error: ")]
    assert errors == lines[-1:]
    assert message in errors[0]
    assert not any("Traceback" in line for line in lines)
    assert contents(folder) == before  # no half a run left behind


@pytest.mark.parametrize("cache", ["pairs.jsonl", "/proc/cache"])
def test_a_cache_that_cannot_be_written_is_one_line(
    cache: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DETOX_TUNE_CACHE", cache)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: search.main(["space.yaml", "--base-model", "pocket"]))
    assert exit_.value.code == 2
    assert "cannot be written" in (line := capsys.readouterr().err.splitlines()[-1])
    assert "set DETOX_TUNE_CACHE" in line


@pytest.mark.parametrize(
    ("temporary", "rule"),
    [(f"/tmp/{'x' * 60}", "too long for the sockets"), ("/proc/nowhere", "cannot be written")],
)
def test_a_temporary_folder_that_ray_cannot_use_is_said_first(
    temporary: str,
    rule: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", temporary)
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: search.main(["space.yaml"]))
    (line,) = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2
    assert rule in line
    assert "set RAY_TMPDIR" in line


def test_a_tokenizer_without_offsets_is_one_line(
    folder: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = ByT5Tokenizer()
    sizes: Any = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes))
    model.save_pretrained("byt5")
    tokenizer.save_pretrained("byt5")
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: search.main(["space.yaml", "--base-model", "byt5"]))
    assert exit_.value.code == 2
    assert "its tokenizer (ByT5Tokenizer) does not tell which" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "search {}",
        "search --resume {}",
        "search pocket data={}",
        "checks {}",
        "rewrite {} hello",
        "merge {} merged",
        "report {}",
        "evaluate --submission a.tsv --reference {}",
    ],
)
def test_a_name_that_no_file_can_have_is_one_line(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.format("x" * 300).split()
    with pytest.raises(SystemExit) as exit_:
        run_command(lambda: commands.main(words))
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "x" * 300 in line
    assert line.endswith(": File name too long: give another path")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def half_an_adapter(folder: Path) -> None:
    config = {
        "peft_type": "LORA",
        "target_modules": ["q"],
        "r": 2,
        "lora_alpha": 2,
        "base_model_name_or_path": "base",
    }
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
        (lambda folder: None, "is no adapter: the file adapter_config.json must be there"),
        (half_an_adapter, "has no adapter_model.safetensors"),
        (damaged_adapter, "adapter_model.safetensors is damaged"),
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
