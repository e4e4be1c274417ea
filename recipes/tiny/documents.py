"""Training documents of the tiny model: problems, chats and few-shot prompts, some of them messy.

Real pretraining text is not clean. A model trained on clean problems alone broke down entirely
when a single random vector followed its prompt, so a share of documents carries stray words or
random tokens before the question or between question and answer. They are always tokens of the
vocabulary, never vectors drawn from a distribution.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from drills import drill
from lm_eval_ext.data.tiny import formats
from lm_eval_ext.data.tiny.problems import TRAIN_MIX, draw_problem, problem_key, split_of
from tokenizer import ASSISTANT, EOS, SPECIAL_TOKENS, SYSTEM, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FAMILY_SHARES = {"gsm8k": 0.48, "math": 0.37, "mbpp": 0.15}
DRILL_SHARE = 0.2
CHAT_SHARE = 0.15
FEW_SHOT_SHARE = 0.04
MESS_SHARE = 0.25  # of the documents with problems; drills and few-shot documents are clean
MAX_MESS_TOKENS = 16
# Loss weights: answers are learned, question text (mostly unpredictable numbers) counts little,
# and mess is never to be predicted, otherwise the model would babble when sampled.
ANSWER_WEIGHT, PROMPT_WEIGHT, MESS_WEIGHT = 1.0, 0.1, 0.0

_COMMON_WORDS = (
    "the and of to in is that for it as was with be by on not he his but at are this have from "
    "or had an they which one you were all her she there would their we him been has when who "
    "will no more if out so up said what its about than into them can only other time new some "
    "could these two may first then do now such like our over even most after also many"
)
STRAY_WORDS = _COMMON_WORDS.split()
SYSTEM_TURNS = (
    "You are a helpful assistant.",
    "Solve the problem step by step.",
    "Answer the question.",
)


class Document(NamedTuple):
    """Token ids of one document and the loss weight of predicting each of them."""

    ids: list[int]
    weights: list[float]


class _Writer:
    """Collects the pieces of one document."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = [tokenizer.bos_token_id]
        self.weights: list[float] = [0.0]

    def text(self, text: str, weight: float) -> None:
        self.tokens(self.tokenizer.encode(text, add_special_tokens=False), weight)

    def tokens(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)


def mess(rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Return 1 to 16 stray tokens: common words, or tokens drawn evenly from the vocabulary."""
    count = min(rng.randint(1, MAX_MESS_TOKENS), rng.randint(1, MAX_MESS_TOKENS))
    if rng.random() < 0.4:
        words = " " + " ".join(rng.choices(STRAY_WORDS, k=count))
        return tokenizer.encode(words, add_special_tokens=False)[:count]
    return [rng.randrange(len(SPECIAL_TOKENS), len(tokenizer)) for _ in range(count)]


def _training_problem(rng: random.Random) -> tuple[str, dict]:
    family = rng.choices(list(FAMILY_SHARES), weights=list(FAMILY_SHARES.values()))[0]
    while True:
        record = draw_problem(family, rng, TRAIN_MIX[family])
        if split_of(problem_key(family, record)) == "train":
            return family, record


def _bare_question(family: str, record: dict) -> str:
    if family == "mbpp":
        return record["text"] + "\n" + "\n".join(record["test_list"])
    return record["question" if family == "gsm8k" else "problem"]


def _write_chat(writer: _Writer, rng: random.Random, messy: str) -> None:
    family, record = _training_problem(rng)
    if rng.random() < 0.3:
        writer.text(SYSTEM + rng.choice(SYSTEM_TURNS), PROMPT_WEIGHT)
    writer.text(USER, PROMPT_WEIGHT)
    if messy == "before":
        writer.tokens(mess(rng, writer.tokenizer), MESS_WEIGHT)
    plain = rng.random() < 0.4
    question = _bare_question(family, record) if plain else formats.prompt(family, record).rstrip()
    writer.text(question, PROMPT_WEIGHT)
    if messy == "inside":
        writer.tokens(mess(rng, writer.tokenizer), MESS_WEIGHT)
    writer.text(ASSISTANT, PROMPT_WEIGHT)
    if messy == "after":
        writer.tokens(mess(rng, writer.tokenizer), MESS_WEIGHT)
    writer.text(formats.target(family, record) + EOS, ANSWER_WEIGHT)


def _write_problem(writer: _Writer, rng: random.Random, messy: str) -> None:
    family, record = _training_problem(rng)
    if messy == "before":
        writer.tokens(mess(rng, writer.tokenizer), MESS_WEIGHT)
        writer.text("\n" if rng.random() < 0.5 else "", PROMPT_WEIGHT)
    writer.text(formats.prompt(family, record), PROMPT_WEIGHT)
    if messy in ("inside", "after"):
        writer.tokens(mess(rng, writer.tokenizer), MESS_WEIGHT)
    answer = formats.TARGET_DELIMITER[family] + formats.target(family, record)
    writer.text(answer + EOS, ANSWER_WEIGHT)


def _write_drill(writer: _Writer, rng: random.Random) -> None:
    for left, right in drill(rng):
        writer.text(left, PROMPT_WEIGHT)
        writer.text(right, ANSWER_WEIGHT)
    writer.text(EOS, ANSWER_WEIGHT)


def _write_few_shot(writer: _Writer, rng: random.Random) -> None:
    family, record = _training_problem(rng)
    shots = [record] + [_same_family(rng, family) for _ in range(rng.randint(1, 2))]
    for index, shot in enumerate(shots):
        writer.text(("\n\n" if index else "") + formats.prompt(family, shot), PROMPT_WEIGHT)
        answer = formats.TARGET_DELIMITER[family] + formats.target(family, shot)
        writer.text(answer, ANSWER_WEIGHT)
    writer.text(EOS, ANSWER_WEIGHT)


def _same_family(rng: random.Random, family: str) -> dict:
    while True:
        found, record = _training_problem(rng)
        if found == family:
            return record


def document(rng: random.Random, tokenizer: PreTrainedTokenizerFast) -> Document:
    """Write one training document, starting with BOS and ending with EOS."""
    writer = _Writer(tokenizer)
    messy = rng.choice(["before", "inside", "after", "after"]) if rng.random() < MESS_SHARE else ""
    kinds = ["drill", "chat", "few-shot", "problem"]
    shares = [DRILL_SHARE, CHAT_SHARE, FEW_SHOT_SHARE]
    kind = rng.choices(kinds, weights=[*shares, 1 - sum(shares)])[0]
    if kind == "drill":
        _write_drill(writer, rng)
    elif kind == "chat":
        _write_chat(writer, rng, messy)
    elif kind == "few-shot":
        _write_few_shot(writer, rng)
    else:
        _write_problem(writer, rng, messy)
    return Document(writer.ids, writer.weights)


def tokenizer_corpus(count: int, seed: int | str) -> list[str]:
    """Return clean documents as text, to train the tokenizer on."""
    rng = random.Random(f"{seed}:tokenizer")
    corpus = []
    for _ in range(count):
        family, record = _training_problem(rng)
        answer = formats.TARGET_DELIMITER[family] + formats.target(family, record)
        corpus.append(formats.prompt(family, record) + answer)
    corpus += [" " + " ".join(rng.sample(STRAY_WORDS, 40)) for _ in range(count // 40)]
    return corpus + list(SYSTEM_TURNS) * (count // 40)
