"""Loading bases: nf4 on the CPU, gradients after evaluation, the untied head, wrong names."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, GPT2Config, MT5Config, PreTrainedModel

from detox_tune.config import TrialConfig
from detox_tune.errors import UserError
from detox_tune.evaluation.decoding import greedy_decode
from detox_tune.model.base import load_base, load_tokenizer, sentinel_ids
from detox_tune.model.lora import add_lora

bitsandbytes: Any = pytest.importorskip("bitsandbytes")


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    """The loss on a fixed batch, dropout off."""
    model.eval()
    input_ids = torch.arange(8, 40).reshape(2, 16)
    return model(input_ids=input_ids, labels=input_ids).loss


def lora_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Gradients of all trainable weights on a fixed batch."""
    model.zero_grad()
    loss_of(model).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def with_plain_layers(model: PreTrainedModel) -> PreTrainedModel:
    """The slow obvious counterpart: every 4-bit layer as a plain bfloat16 linear layer."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, bitsandbytes.nn.Linear4bit):
                plain = torch.nn.Linear(child.in_features, child.out_features, bias=False)
                weight = bitsandbytes.functional.dequantize_4bit(
                    child.weight.data, child.weight.quant_state
                )
                plain.weight = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
                setattr(module, name, plain)
    return model


def test_block_layers_are_nf4_and_the_rest_is_bfloat16(tiny_base: Path) -> None:
    model: Any = load_base(str(tiny_base), quantization="nf4")[0]
    quantised = {n for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert "encoder.block.0.layer.0.SelfAttention.q" in quantised
    assert "decoder.block.1.layer.1.EncDecAttention.o" in quantised
    assert not any(name.endswith((".wo", "lm_head")) for name in quantised)
    layer = model.get_submodule("encoder.block.0.layer.0.SelfAttention.q")
    assert layer.weight.quant_state.quant_type == "nf4"
    assert model.lm_head.weight.dtype == model.shared.weight.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("approach", ["first", "second", "all"])
def test_gradients_after_evaluation_are_those_before_and_those_of_plain_layers(
    tiny_base: Path, approach: str
) -> None:
    model, _ = load_base(str(tiny_base), quantization="nf4")
    trial = TrialConfig.model_validate({"lora": approach})
    adapted = add_lora(model, trial, seed=1)
    before = lora_gradients(adapted)
    with torch.no_grad():
        greedy_decode(adapted, [[5, 6, 7, 1]], max_new_tokens=4)
        loss_of(adapted)
    after = lora_gradients(adapted)

    plain_base, _ = load_base(str(tiny_base), quantization="nf4")
    plain = lora_gradients(add_lora(with_plain_layers(plain_base), trial, seed=1))
    assert before.keys() == after.keys() == plain.keys()
    assert any(gradient.abs().max() > 0 for gradient in before.values())
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, rtol=0, atol=0)
        torch.testing.assert_close(plain[name], gradient, rtol=0, atol=0)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_head_stays_untied(tiny_base: Path, quantization: str) -> None:
    model: Any = load_base(str(tiny_base), quantization=quantization)[0]  # type: ignore[arg-type]
    assert model.config.tie_word_embeddings is False
    head = model.lm_head.weight.detach().clone()
    assert not torch.equal(head, model.shared.weight)
    model.tie_weights()  # what transformers calls on the way through resizing
    assert torch.equal(model.lm_head.weight, head)


def test_the_fused_gelu_is_that_of_the_checkpoint(tiny_base: Path) -> None:
    fused, _ = load_base(str(tiny_base), quantization="none")
    plain = AutoModelForSeq2SeqLM.from_pretrained(str(tiny_base), dtype=torch.float32)
    activations = [type(m.act) for m in fused.modules() if hasattr(m, "act")]
    assert set(activations) == {torch.nn.GELU}
    torch.testing.assert_close(loss_of(fused), loss_of(plain))


def test_a_tied_checkpoint_stays_tied(tmp_path: Path, tiny_base: Path) -> None:
    config = MT5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    load_tokenizer(str(tiny_base)).save_pretrained(tmp_path)
    model, _ = load_base(str(tmp_path), quantization="none")
    assert model.config.tie_word_embeddings is True


def test_sentinels_are_found_wherever_they_stand(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_base))
    ids = sentinel_ids(tokenizer)
    assert [tokenizer.decode([i]) for i in ids] == [f"<extra_id_{n}>" for n in (3, 2, 1, 0)]
    assert ids[-1] not in tokenizer("a <extra_id_0> b").input_ids


def test_pad_and_end_are_mt5s(tiny_base: Path) -> None:
    model, tokenizer = load_base(str(tiny_base), quantization="none")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert model.config.decoder_start_token_id == 0


def test_an_unknown_name_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"base_model='no/such-model' cannot be loaded") as caught:
        load_base("no/such-model", quantization="none")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no checkpoint: the folder must hold config\.json"):
        load_base(str(tmp_path), quantization="none")


def test_another_architecture(tmp_path: Path) -> None:
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"is a gpt2 model, but must be of the T5 family"):
        load_base(str(tmp_path), quantization="none")


class Code:
    """What a pickle can do: anything."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


@pytest.mark.parametrize("content", ["text", "half", "nothing", "code"])
def test_damaged_or_hostile_pickled_weights(
    content: str, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in tiny_base.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "pytorch_model.bin"
    torch.save(load_file(tiny_base / "model.safetensors"), path)
    if content == "code":
        torch.save({"shared.weight": Code()}, path)
    else:
        good = path.read_bytes()
        path.write_bytes({"text": b"no weights", "half": good[: len(good) // 2]}.get(content, b""))
    with pytest.raises(UserError, match=r"pickled weights .* are damaged, or hold more than tens"):
        load_base(str(tmp_path), quantization="none")
    assert not Path("ran").exists()


def test_damaged_weights(tmp_path: Path, tiny_base: Path) -> None:
    for file in tiny_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(str(tmp_path), quantization="none")
