"""An adapter and its base as one model: the same outputs, in transformers and in CTranslate2."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from detox_tune.errors import UserError
from detox_tune.evaluation.adapters import load_adapter, load_whole_model, merge_adapter
from detox_tune.evaluation.rewriting import likeliest_new
from detox_tune.merge import main
from tests.exported_run import SOURCES, exported_run


@pytest.fixture(params=["none", "nf4"])
def best(request: pytest.FixtureRequest, tiny_base: Path, tmp_path: Path) -> Path:
    """An adapter that changes its base, as a search exports it."""
    return exported_run(tmp_path / "run", tiny_base, quantization=request.param)


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    batch = tokenizer(SOURCES, return_tensors="pt", padding=True)
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(**batch, labels=batch.input_ids).logits
    return found.float()


def test_the_merged_model_computes_what_base_and_adapter_do(best: Path, tmp_path: Path) -> None:
    tuned = load_adapter(best)
    before = logits(tuned.model, tuned.tokenizer)
    assert isinstance(tuned.model, PeftModel)
    base_alone = logits(tuned.model.unload(), tuned.tokenizer)
    merge_adapter(load_adapter(best), tmp_path / "merged")
    merged = load_whole_model(str(tmp_path / "merged"))
    after = logits(merged.model, merged.tokenizer)
    # 8 bits of mantissa: some thousandths of the largest numbers
    error = (after - before).abs().max()
    assert error < 0.1 * (base_alone - before).abs().max()
    stored = {str(weight.dtype) for weight in merged.model.parameters()}
    assert stored == {"torch.float32"}  # read in full precision
    assert (tmp_path / "merged" / "model.safetensors").stat().st_size < sum(
        2.2 * weight.numel() for weight in merged.model.parameters()
    )


def test_an_adapter_decodes_with_the_beams_of_its_search(best: Path) -> None:
    tuned = load_adapter(best)
    with_beams = [answer.text for answer in tuned.answers(SOURCES)]
    candidates = tuned.candidates(SOURCES, 3)
    expected = [
        likeliest_new(made, source, tuned.task_prefix).text
        for source, made in zip(SOURCES, candidates, strict=True)
    ]
    greedy = [answer.text for answer in replace(tuned, beams=1).answers(SOURCES)]
    assert with_beams == expected != greedy


def test_the_command(best: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ctranslate2")
    merged, converted = tmp_path / "merged", tmp_path / "fast"
    assert main([str(best), str(merged), "--ctranslate2", str(converted)]) == 0
    printed = capsys.readouterr().out
    assert f"{merged}: a model of its own; " in printed
    assert f"{converted}: the same for CTranslate2; " in printed
    assert printed.count(f" of its {len(SOURCES)} samples have the same output as before") == 2
    assert "put 'detoxify: ' before every sentence" in printed
    assert "--task-prefix 'detoxify: ' --reference PAIRS" in printed
    with pytest.raises(UserError, match="merged exists already"):
        main([str(best), str(merged)])


def test_the_converted_model_has_the_same_probabilities(best: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    main([str(best), str(tmp_path / "merged"), "--ctranslate2", str(tmp_path / "fast")])
    merged = load_whole_model(str(tmp_path / "merged"))
    tokenizer: Any = merged.tokenizer
    ids = tokenizer(SOURCES[0], return_tensors="pt").input_ids
    with torch.no_grad():
        ours = merged.model(input_ids=ids, labels=ids).logits.log_softmax(-1)
    tokens = tokenizer.convert_ids_to_tokens(ids[0])
    translator = ctranslate2.Translator(str(tmp_path / "fast"))
    (theirs,) = translator.score_batch([tokens], [tokens[:-1]])  # it adds the end token
    expected = ours[0].gather(1, ids[0, :, None])[:, 0].tolist()
    assert theirs.log_probs == pytest.approx(expected, abs=1e-3)
