"""XCOMET-lite without its package, which needs versions of other packages that we cannot have.

xCOMET (Guerreiro et al. 2024, "xCOMET: Transparent Machine Translation Evaluation through
Fine-grained Error Detection") gives a text a score and marks its errors; XCOMET-lite (Larionov et
al. 2024, "xCOMET-lite: Bridging the Gap Between Efficiency and Quality in Learned MT Evaluation
Metrics") is its distilled form on mDeBERTa. This is the part of it that scoring needs, by the
definitions of unbabel-comet 2.2.7 and of PAN 2025's wrapper; names of weights are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model, PreTrainedTokenizerBase

WORD_LAYER = 8
"""Encoder layer whose states the errors are read from; 0 is the embedding."""
_INPUT_WEIGHTS = (0.1667, 0.3333, 0.5)
"""Shares of the inputs with source, with reference and with both in the errors."""
_SCORE_WEIGHTS = (0.12, 0.33, 0.33)
"""Shares of the same three inputs in the score."""
_ERRORS_WEIGHT = 0.22
"""Share of the marked errors in the score."""
_PENALTIES = (0, 1, 5, 10)
"""Points off for no error and for a minor, a major and a critical one (MQM)."""
_MOST_POINTS = 25
_ONLY_FOR_TRAINING = frozenset(
    {"layerwise_attention.dropout_mask", "layerwise_attention.dropout_fill", "wordloss.weight"}
)


class XcometLite(nn.Module):
    """Quality of an output given its source and a reference, about 0 to 1 (1 is best).

    It may fall below 0, as the original clips its parts at the upper end only.
    """

    def __init__(
        self,
        config: DebertaV2Config,
        hidden_sizes: tuple[int, int],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Build the model with random weights; `load` reads trained ones.

        Args:
            config: The encoder's settings; it must have at least `WORD_LAYER` layers.
            hidden_sizes: Widths of the two hidden layers that a score is computed by.
            tokenizer: The encoder's own.
        """
        super().__init__()
        size = config.hidden_size
        self.encoder = nn.ModuleDict({"model": DebertaV2Model(config)})
        self.layerwise_attention = _LayerMix(config.num_hidden_layers + 1)
        first, second = hidden_sizes
        # Places 2 and 5 held dropout; identities keep the names of the weights.
        layers = [
            *(nn.Linear(size, first), nn.Tanh(), nn.Identity()),
            *(nn.Linear(first, second), nn.Tanh(), nn.Identity()),
            nn.Linear(second, 1),
        ]
        self.estimator = nn.ModuleDict({"ff": nn.Sequential(*layers)})
        self.hidden2tag = nn.Linear(size, len(_PENALTIES))
        self._tokenizer = tokenizer
        self._most_tokens = config.max_position_embeddings - 2

    @classmethod
    def load(cls, weights: Path, base: Path, *, device: str) -> XcometLite:
        """Read trained weights.

        Args:
            weights: Folder with XCOMET-lite's `model.safetensors`.
            base: Folder with the configuration and tokenizer of mDeBERTa (v3, base).
            device: A torch device.

        Raises:
            OSError: A file is missing.
            ValueError: The weights are not those of such a model.
        """
        state = load_file(weights / "model.safetensors")
        state = {
            name: values
            for name, values in state.items()
            if name not in _ONLY_FOR_TRAINING and not name.endswith(".position_ids")
        }
        shapes = [state.get(f"estimator.ff.{place}.weight") for place in (0, 3)]
        sizes = [len(values) for values in shapes if values is not None]
        if len(sizes) != 2:
            raise ValueError("the weights have no layers estimator.ff.0 and estimator.ff.3")
        config = DebertaV2Config.from_pretrained(base)
        model = cls(config, (sizes[0], sizes[1]), AutoTokenizer.from_pretrained(base))
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the weights do not fit: {error}") from error
        return model.to(device).eval()

    @torch.no_grad()
    def score(
        self,
        sources: Sequence[str],
        outputs: Sequence[str],
        references: Sequence[str],
        *,
        batch_size: int = 32,
    ) -> NDArray[np.float64]:
        """The score of every sample; shape (samples,), in batches of like length."""
        columns = [self._content(texts) for texts in (outputs, sources, references)]
        samples = list(zip(*columns, strict=True))
        order = sorted(range(len(samples)), key=lambda place: -sum(map(len, samples[place])))
        scores = np.zeros(len(samples))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            scores[batch] = self._score_batch([samples[place] for place in batch])
        return scores

    def _content(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the texts without special tokens, cut so that two of these still fit."""
        if not texts:
            return []
        ids = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=True,
            max_length=self._most_tokens - 4,
        ).input_ids
        return [list(row) for row in ids]

    def _score_batch(self, samples: Sequence[tuple[list[int], ...]]) -> NDArray[np.float64]:
        """Scores of samples (output, source, reference), each a list of token ids."""
        score_b = torch.zeros(len(samples))
        lengths = [len(output) + 2 for output, _, _ in samples]  # with the tokens around it
        probability_btl = torch.zeros(len(samples), max(lengths), len(_PENALTIES))
        inputs = ((0, 1), (0, 2), (0, 1, 2))
        for parts, share, weight in zip(inputs, _SCORE_WEIGHTS, _INPUT_WEIGHTS, strict=True):
            rows = [self._joined([sample[part] for part in parts]) for sample in samples]
            regression_b, tags_btl = self(rows)
            score_b += share * regression_b.clamp(max=1.0).cpu()
            probability_btl += weight * tags_btl[:, : max(lengths)].softmax(-1).cpu()
        labels = probability_btl.argmax(-1).tolist()
        freedom = [_freedom(row[:length]) for row, length in zip(labels, lengths, strict=True)]
        return score_b.double().numpy() + _ERRORS_WEIGHT * np.array(freedom)

    def _joined(self, texts: Sequence[list[int]]) -> list[int]:
        """One sequence: [CLS] text [SEP] text [SEP] …, cut to what the encoder takes."""
        ids = [self._tokenizer.cls_token_id]
        for text in texts:
            ids += [*text, self._tokenizer.sep_token_id]
        return ids[: self._most_tokens]

    def forward(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Regression scores, shape (rows,), and logits of the labels, (rows, tokens, labels)."""
        device = self.hidden2tag.weight.device
        longest = max(map(len, rows))
        pad = self._tokenizer.pad_token_id
        ids_bt = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
        mask_bt = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        states = self.encoder["model"](
            input_ids=ids_bt.to(device),
            attention_mask=mask_bt.to(device),
            output_hidden_states=True,
        ).hidden_states
        sentence_bh = self.layerwise_attention([state[:, 0] for state in states])
        return self.estimator["ff"](sentence_bh).squeeze(-1), self.hidden2tag(states[WORD_LAYER])


class _LayerMix(nn.Module):
    """A weighted mean of layers, times gamma."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.scalar_parameters = nn.ParameterList([torch.zeros(1) for _ in range(layers)])
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, states: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = torch.cat(list(self.scalar_parameters)).softmax(0)
        mixed = torch.stack(
            [weight * state for weight, state in zip(weights, states, strict=True)]
        ).sum(0)
        return self.gamma * mixed


def _freedom(labels: Sequence[int]) -> float:
    """Freedom from errors, 0 to 1, from a label (index into `_PENALTIES`) for each token.

    Neighbouring tokens with an error are one error, as severe as its first token. An error that
    runs to the last token, which is the separator, is not counted; the original does not either.
    """
    points = severity = 0
    for label in labels:
        if severity and not label:
            points += _PENALTIES[severity]
            severity = 0
        elif label and not severity:
            severity = label
    return 1 - min(points, _MOST_POINTS) / _MOST_POINTS
