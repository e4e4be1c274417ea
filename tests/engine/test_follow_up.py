"""Follow-ups of finished attempts, read from their caches, against plain passes."""

import functools
from dataclasses import replace

import pytest
import torch

from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.fallback import FallbackDecoder


class Questions:
    """Three tokens after an attempt, which is cut short or changed in every possible way."""

    readout_ids = (3, 9, 27)

    def __init__(self):
        self.asked = {}

    def requests(self, finished):
        return [self.request(attempt) for attempt in finished]

    def request(self, attempt):
        ids = tuple(attempt.token_ids)
        kind = sum(ids) % 6
        if kind == 0:
            return None
        changed = {
            1: ids,
            2: ids[:-1],
            3: ids[: len(ids) // 2],
            4: (),
            5: (*ids[:2], 33, *ids[2:]),  # departs from what was generated
        }[kind]
        asked = attempt.request
        wanted = replace(asked, private_ids=(*asked.private_ids, *changed, 41, 42, 43))
        if len(ids) % 3 == 0 and wanted.shared_ids:  # begins otherwise: nothing to continue from
            wanted = replace(wanted, shared_ids=wanted.shared_ids[1:])
        self.asked[attempt.request] = wanted
        return wanted


@torch.inference_mode()
def by_hand(model, request):
    embedded = model.get_input_embeddings()
    parts = [embedded(torch.tensor(request.shared_ids, dtype=torch.int64))]
    if request.vectors is not None:
        parts.append(request.vectors.draw())
    parts.append(embedded(torch.tensor(request.private_ids)))
    logits = model(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0, -1]
    return logits[list(Questions.readout_ids)].tolist()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "mistral"])
@pytest.mark.parametrize("max_rows", [1, 5, 64])
@pytest.mark.parametrize(
    "decoder_class",
    [Decoder, functools.partial(FallbackDecoder, expand_cache=False)],
    ids=["caches", "plain"],
)
def test_readouts_are_those_of_plain_passes(
    random_model, make_requests, decode, name, max_rows, decoder_class
):
    model, questions = random_model(name), Questions()
    requests = make_requests(8, 5, vectors=True)
    decoder = functools.partial(decoder_class, follow_up=questions)
    settings = {"max_rows": max_rows, "eos": tuple(range(40, 120)), "max_new_tokens": 24}
    results = decode(decoder, model, requests, **settings)
    plain = decode(decoder_class, model, make_requests(8, 5, vectors=True), **settings)
    assert len({len(result.token_ids) for result in results.values()}) > 5
    n_read = 0
    for place, request in enumerate(requests):
        result = results[place]
        assert result.token_ids == plain[place].token_ids
        wanted = questions.asked.get(request)
        if wanted is None:
            assert result.readout is None
            continue
        n_read += 1
        assert result.readout == pytest.approx(by_hand(model, wanted), abs=2e-3, rel=2e-3)
    assert len(requests) / 2 < n_read < len(requests)
