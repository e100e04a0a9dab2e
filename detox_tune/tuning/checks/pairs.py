"""What the data and the lexicon hold, language by language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from transformers import PreTrainedTokenizerBase

from detox_tune.data.lexicon import Lexicon
from detox_tune.data.text import words
from detox_tune.training.examples import Example
from detox_tune.tuning.checks.result import CheckResult, Status
from detox_tune.tuning.task import Task

# Shares of training sources with a toxic word, over 200 pairs a language of multilingual_paradetox
# and PAN's lexicons: .30 (German) to .99 with a language's own list. Another language's finds .00
# to .12 but where it lists borrowed words, which then do mark what is toxic (up to .68).
_COVERAGE_FAIL = 0.10
_COVERAGE_WARN = 0.30
# References with toxic words, as a share of such sources: .09 or less in those data with the
# language's own list, .8 and more with lists of ordinary words.
_REFERENCES_WARN = 1 / 3
_OVER_LONG_WARN = 0.05
_UNKNOWN_WARN = 0.01
_SHOWN_TOKENS = 6


def sentence_checks(
    task: Task, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[CheckResult]:
    """One row per language: words, tokens, tokens that the base does not know, over-long ones."""
    return [
        _sentence_check(task, language, tokenizer.unk_token_id, max_tokens)
        for language in languages_of(task)
    ]


def _sentence_check(
    task: Task, language: str, unknown_id: int | None, max_tokens: int
) -> CheckResult:
    pairs = [pair for pair in task.train if pair.language == language]
    examples = _examples(task, language)
    references = [reference for pair in pairs for reference in pair.references]
    over_long = 1 - len(examples) / len(references)
    name = f"sentences {language}"
    if not examples:
        return CheckResult(
            name,
            Status.FAIL,
            f"all {len(references):,} references or their sources exceed max_tokens={max_tokens}",
            f"raise max_tokens, or leave {language} out of languages",
        )
    sources = {example.pair: example.source_ids for example in examples}.values()
    labels = [example.label_ids for example in examples]
    tokens = task.vocabulary.full(list(chain.from_iterable([*sources, *labels])))
    unknown = tokens.count(unknown_id) / len(tokens) if unknown_id is not None else 0.0
    seen = (
        f"{len(pairs):,} pairs; sources {_mean(words(p.source, language) for p in pairs):.1f} "
        f"words, {_mean(sources):.1f} tokens; references "
        f"{_mean(words(text, language) for text in references):.1f} words, "
        f"{_mean(labels):.1f} tokens; {over_long:.1%} over max_tokens={max_tokens}; "
        f"{unknown:.1%} unknown tokens"
    )
    remedies = []
    if over_long > _OVER_LONG_WARN:
        remedies.append("raise max_tokens, or these pairs are not trained on")
    if unknown > _UNKNOWN_WARN:
        remedies.append(f"use a base whose vocabulary knows {language}, such as google/mt5-base")
    return CheckResult(name, Status.WARN if remedies else Status.PASS, seen, "; ".join(remedies))


def lexicon_checks(task: Task, *, needed_by: Sequence[str]) -> list[CheckResult]:
    """One row per language: how many training sources hold a toxic word.

    Args:
        task: its examples are counted, its lexicon named.
        needed_by: what in the space depends on toxic words; without any, bad coverage is a warning.
    """
    return [_lexicon_check(task, language, needed_by) for language in languages_of(task)]


def _lexicon_check(task: Task, language: str, needed_by: Sequence[str]) -> CheckResult:
    examples = _examples(task, language)
    sources = {example.pair: any(example.source_toxic) for example in examples}
    covered = sum(sources.values()) / max(len(sources), 1)
    marked = sum(any(example.label_toxic) for example in examples) / max(len(examples), 1)
    entries = _entries(task.lexicon, language)
    name = f"lexicon {language}"
    seen = (
        f"{entries:,} entries; toxic words in {covered:.0%} of {len(sources):,} sources and "
        f"{marked:.0%} of {len(examples):,} references"
    )
    remedy = (
        f"give a --lexicon with toxic words of {language} as they stand in the data, or annotated "
        "spans (`spans:`)"
    )
    if covered < _COVERAGE_FAIL:
        what = "is empty" if not entries else "looks like one of another language"
        if not needed_by:
            return CheckResult(
                name, Status.WARN, seen, f"copies are recognised less surely: {remedy}"
            )
        return CheckResult(
            name,
            Status.FAIL,
            f"{seen}: the lexicon {what}, and {', '.join(needed_by)} cannot work",
            f"{remedy}; or search without them: mask_strategy: none, gamma: 0",
        )
    if covered < _COVERAGE_WARN:
        return CheckResult(name, Status.WARN, seen, f"{remedy} where more sources are to be marked")
    if marked > _REFERENCES_WARN * covered:
        return CheckResult(
            name,
            Status.WARN,
            f"{seen}: it marks many neutral sentences, and their words are then kept down",
            f"take ordinary words out of the lexicon of {language}, or raise lexicon_purity",
        )
    return CheckResult(name, Status.PASS, seen)


def label_check(task: Task, tokenizer: PreTrainedTokenizerBase) -> CheckResult:
    """Whether references hold anything to learn: tokens other than padding and the end token."""
    nothing = {tokenizer.pad_token_id, tokenizer.eos_token_id, -100}
    full = task.vocabulary.full
    empty = sum(nothing.issuperset(full(example.label_ids)) for example in task.examples)
    positions = sum(len(example.label_ids) for example in task.examples)
    seen = f"{len(task.examples):,} references, {positions:,} positions; {empty:,} hold no token"
    remedy = "check the neutral sentences, and that the tokenizer belongs to the base"
    if empty == 0:
        return CheckResult("labels", Status.PASS, seen)
    status = Status.FAIL if empty == len(task.examples) else Status.WARN
    return CheckResult("labels", status, seen, remedy)


def penalty_check(task: Task, tokenizer: PreTrainedTokenizerBase) -> CheckResult:
    """Which tokens the toxic penalty keeps down; without any it is 0 throughout."""
    count = len(task.forbidden_token_ids)
    if not count:
        return CheckResult(
            "penalty",
            Status.FAIL,
            "gamma weighs a penalty on toxic tokens, but none stands in toxic words often enough",
            "give a --lexicon whose words occur there, lower min_purity, or fix gamma: 0",
        )
    step = max(1, count // _SHOWN_TOKENS)
    shown = tokenizer.convert_ids_to_tokens(
        task.vocabulary.full(task.forbidden_token_ids[::step][:_SHOWN_TOKENS])
    )
    return CheckResult("penalty", Status.PASS, f"{count:,} toxic tokens, such as {' '.join(shown)}")


def languages_of(task: Task) -> list[str]:
    """The languages of the training pairs, sorted."""
    return sorted({pair.language for pair in task.train})


def _examples(task: Task, language: str) -> list[Example]:
    return [e for e in task.examples if task.train[e.pair].language == language]


def _entries(lexicon: Lexicon, language: str) -> int:
    return len(lexicon.entries(language)) if language in lexicon.languages else 0


def _mean(lists: Iterable[Sequence[object]]) -> float:
    """Mean length."""
    lengths = list(map(len, lists))
    return sum(lengths) / max(len(lengths), 1)
