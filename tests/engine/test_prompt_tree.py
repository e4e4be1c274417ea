"""Common beginnings of prompts are read once, attended to once, and change no logit."""

import itertools

import numpy as np
import pytest
import torch

from lm_eval_ext.engine import prompt_layout, prompt_tree
from lm_eval_ext.engine.decoding import Decoder
from lm_eval_ext.engine.fallback import FallbackDecoder
from lm_eval_ext.engine.inputs import private_inputs
from lm_eval_ext.engine.private_cache import PrivateCache
from lm_eval_ext.engine.prompt_layout import PromptCache, SharedPrefix
from lm_eval_ext.engine.prompt_tree import PromptTree
from lm_eval_ext.engine.random_stream import attempt_stream
from lm_eval_ext.engine.request import AttemptRequest
from lm_eval_ext.engine.shared_prefix import forward, prefill, shared_prefix_mode

ARCHITECTURES = ("llama", "qwen3", "gemma3", "gpt_neox", "mistral", "granite")
N_MORE = 5
# The span above each, and their lengths: shorter and longer than the sliding window (12).
ABOVE = (None, 0, 1, 0, 2, None)
LENGTHS = (14, 5, 9, 3, 20, 6)


def tokens(n, seed):
    return torch.randint(5, 90, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


SPANS = [tokens(n, i) for i, n in enumerate(LENGTHS)]


def whole(end):
    return [] if end is None else whole(ABOVE[end]) + SPANS[end]


# Many rows on one span, several spans alike in length, rows out of order, at depths 1 to 4.
TREES = {
    "depth 1": [0, 5, 0, 0],
    "depth 2": [1, 3, 0, 1, 5, 3],
    "depth 3": [2, 0, 3, 2, 1, 5, 2],
    "depth 4": [4, 2, 4, 0],
    "wide": [1] * 9 + [3, 5] + [1],
    "one row": [2],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("rows", TREES.values(), ids=TREES)
@pytest.mark.parametrize("chunk", [1, N_MORE])
@torch.inference_mode()
def test_logits_below_a_tree_equal_the_plain_models(random_model, name, rows, chunk):
    model = random_model(name)
    private = [tokens(1 + i % 4, 50 + i) for i in range(len(rows))]
    more = torch.tensor([tokens(N_MORE, 90 + i) for i in range(len(rows))])
    expected = torch.cat(
        [
            model(torch.tensor([whole(end) + own + after.tolist()]), use_cache=False).logits[
                :, -N_MORE - 1 :
            ]
            for end, own, after in zip(rows, private, more, strict=True)
        ]
    )
    longest = max(map(len, private))
    padded = torch.tensor([[0] * (longest - len(ids)) + ids for ids in private])
    with shared_prefix_mode(model):
        caches = []
        for span, above in zip(SPANS, ABOVE, strict=True):
            caches += prefill(model, [span], [None if above is None else caches[above]])
        prefix = SharedPrefix(caches, rows)
        cache = PrivateCache([longest - len(ids) for ids in private])
        parts = [forward(model, padded, prefix=prefix, cache=cache, logits_to_keep=1)]
        parts += [forward(model, ids, prefix=prefix, cache=cache) for ids in more.split(chunk, 1)]
    actual = torch.cat(parts, dim=1)
    torch.testing.assert_close(actual, expected, atol=1e-4 * float(expected.std()), rtol=1e-5)


def request(shared, private=(7,), attempt=0, vectors=None):
    stream = attempt_stream(0, str(shared), attempt, purpose="tokens")
    return AttemptRequest(tuple(shared), tuple(private), stream, vectors)


SYSTEM, SHOTS = tokens(40, 1), tokens(60, 2)


def requests(n_attempts=2):
    """Two sets of shots under one system message, and a prompt of another kind."""
    prompts = [SYSTEM + SHOTS + tokens(20 + i, 10 + i) for i in range(3)]
    prompts += [SYSTEM + tokens(50, 3) + tokens(35, 20 + i) for i in range(2)]
    prompts += [SYSTEM + SHOTS, tokens(70, 30)]
    return [request(prompt, attempt=i) for prompt in prompts for i in range(n_attempts)]


def spans_of(tree, asked):
    return [[len(node.token_ids) for node in tree._path(one.shared_ids)] for one in asked]


def test_the_tree_of_some_prompts():
    asked = requests(n_attempts=3)[::3]
    tree = PromptTree(requests(n_attempts=3))
    assert spans_of(tree, asked) == [
        [40, 60, 20],
        [40, 60, 21],
        [40, 60, 22],
        [40, 50, 35],
        [40, 50, 35],
        [40, 60],
        [70],
    ]
    # One attempt each: what is its own, it reads for itself.
    single = [request(one.shared_ids) for one in asked]
    tree = PromptTree(single)
    assert spans_of(tree, single) == [[40, 60]] * 3 + [[40, 50]] * 2 + [[40, 60], []]
    placed = tree.placed(single[0])
    assert placed.shared_ids == tuple(SYSTEM + SHOTS)
    assert placed.prompt_ids == single[0].prompt_ids
    assert placed.stream is single[0].stream


@pytest.mark.parametrize(
    ("prompts", "spans"),
    [
        ([[]], [[]]),
        ([tokens(31, 1)] * 2, [[]]),  # read twice rather than attended to apart
        ([tokens(32, 1)] * 2, [[32]]),
        ([[*tokens(31, 1), 5], [*tokens(31, 1), 6]], [[], []]),  # too little in common
        ([[*tokens(32, 1), 5], [*tokens(32, 1), 6]], [[32], [32]]),
        ([tokens(40, 1), [*tokens(40, 1), 6]], [[40], [40]]),  # one begins the other
        # Each goes a little further than the one before.
        ([tokens(200, 1)[:n] for n in range(100, 110)], [[100]] * 10),
        # No more levels than pay.
        ([tokens(400, 1)[: 40 * n] for n in range(1, 9)], None),
    ],
)
def test_spans(prompts, spans):
    asked = [request(prompt) for prompt in prompts]
    tree = PromptTree(asked)
    found = spans_of(tree, asked)
    if spans is None:
        assert max(map(len, found)) == 4
    else:
        assert found == [spans[0]] * len(asked) if len(spans) == 1 else found == spans
    for one, path in zip(asked, found, strict=True):
        assert len(tree.placed(one).shared_ids) == sum(path)
        assert tree.placed(one).prompt_ids == one.prompt_ids


def test_vectors_stay_where_they_are():
    from lm_eval_ext.engine.request import Vectors

    vectors = Vectors(2, lambda: torch.zeros(2, 64))
    asked = [request(tokens(20, 1), vectors=vectors), request(tokens(20, 2))]
    tree = PromptTree(asked)
    assert spans_of(tree, asked) == [[20], []]
    assert tree.placed(asked[0]) is asked[0]


def test_order_keeps_what_is_common_together_and_long_prompts_first():
    asked = requests()
    tree = PromptTree(asked)
    order = [asked[i] for i in tree.order(asked[::-1][::-1])]
    paths = [tree._path(one.shared_ids) for one in order]
    for depth in range(2):
        at_depth = [path[depth] if depth < len(path) else None for path in paths]
        runs = [node for node, _ in itertools.groupby(at_depth)]
        assert len(runs) == len(set(runs))
    lengths = [len(one.shared_ids) for one in order]
    assert lengths[0] == max(lengths)
    assert lengths[-1] == 70  # the tree of the longest prompt comes first


@torch.inference_mode()
def test_every_token_is_read_once_and_let_go_in_time(random_model, monkeypatch):
    read = []

    def counting(model, prompts, parents=None, **measured):
        read.extend(map(len, prompts))
        return prefill(model, prompts, parents, **measured)

    monkeypatch.setattr(prompt_tree, "prefill", counting)
    model, asked = random_model("llama"), requests()
    tree = PromptTree(asked)
    nodes = {node for one in asked for node in tree._path(one.shared_ids)}
    with shared_prefix_mode(model):
        for one in asked:
            tree.read(model, [one])
            assert tree.prefix([one]).row_lengths.tolist() == [len(tree.placed(one).shared_ids)]
        assert sorted(read) == sorted(len(node.token_ids) for node in nodes)
        assert all(node.cache is not None for node in nodes)
        for i, one in enumerate(asked):
            tree.release([one])
            needed = {n for later in asked[i + 1 :] for n in tree._path(later.shared_ids)}
            assert {node for node in nodes if node.cache is not None} == needed


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize(("n_attempts", "max_rows"), [(1, 3), (1, 64), (4, 5), (4, 64)])
def test_attempts_are_those_without_a_tree(
    random_model, decode, monkeypatch, name, n_attempts, max_rows
):
    model = random_model(name)
    found = decode(Decoder, model, requests(n_attempts), max_rows=max_rows, eos=(7, 11))
    single = {}
    for place, one in enumerate(requests(n_attempts)):
        results = decode(Decoder, model, [one], max_rows=1, eos=(7, 11))
        single[place] = results[0].token_ids
    assert {place: result.token_ids for place, result in found.items()} == single
    if name == "llama":

        def plain(*arguments, **settings):
            return FallbackDecoder(*arguments, expand_cache=False, **settings)

        theirs = decode(plain, model, requests(n_attempts), max_rows=7, eos=(7, 11))
        assert {place: result.token_ids for place, result in theirs.items()} == single


@torch.inference_mode()
def test_layouts_after_rows_have_left_attend_to_the_same(random_model):
    """A stack of which some are no longer used, one that is wide by now, and a level that ended."""
    model = random_model("llama")
    draws = np.random.default_rng(0)
    with shared_prefix_mode(model):
        root = prefill(model, [tokens(14, 1)])[0]
        ends = prefill(model, [tokens(6 + i % 3, 40 + i) for i in range(8)], [root] * 8)
        ends += [root, PromptCache((), 0)]
        layout = SharedPrefix(ends, list(range(10)))
        for n_rows in (12, 30, 9, 6, 5, 3, 1):
            rows = [int(i) for i in draws.integers(0, 10, n_rows)]
            layout = SharedPrefix(ends, rows, reuse=layout)
            ids = torch.tensor([tokens(2, i) for i in range(n_rows)])
            caches = [PrivateCache([0] * n_rows) for _ in range(2)]
            logits = [
                forward(model, ids, prefix=prefix, cache=cache)
                for prefix, cache in zip((layout, SharedPrefix(ends, rows)), caches, strict=True)
            ]
            torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)


def test_caches_of_other_lengths_are_not_padded_to_one():
    caches = [PromptCache(((torch.zeros(1, 4, n), torch.zeros(1, n, 4)),), n) for n in (1000, 990)]
    caches += [PromptCache(((torch.zeros(1, 4, 9), torch.zeros(1, 9, 4)),), 9)]
    layout = SharedPrefix(caches, [0, 1, 2])
    stacks = [bundle.stack for bundle in layout.levels[0].bundles]
    assert [[cache.length for cache in stack.caches] for stack in stacks] == [[1000, 990], [9]]
    assert stacks[1].layers[0][0].data_ptr() == caches[2].layers[0][0].data_ptr()  # not copied
    assert prompt_layout._WIDE > 1


@torch.inference_mode()
def test_private_rest_of_a_prompt_is_padded_with_the_rows(random_model):
    """Rows whose own parts differ much in length, as where each attempt reads its own question."""
    model = random_model("qwen3")
    asked = [request(SYSTEM + tokens(n, n)) for n in (3, 25, 1, 12)]
    tree = PromptTree(asked)
    rows = [tree.placed(one) for one in asked]
    with shared_prefix_mode(model):
        tree.read(model, asked)
        inputs = private_inputs(model, rows)
        starts = [inputs.shape[1] - row.private_length for row in rows]
        cache = PrivateCache(starts)
        logits = forward(model, inputs, prefix=tree.prefix(asked), cache=cache, logits_to_keep=1)
    for row, one in zip(logits, asked, strict=True):
        expected = model(torch.tensor([list(one.prompt_ids)]), use_cache=False).logits[0, -1:]
        torch.testing.assert_close(row, expected, atol=1e-4 * float(expected.std()), rtol=1e-5)
