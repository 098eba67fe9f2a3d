"""CLIP's text side, for many texts that begin alike.

The state of a token depends on what comes before it alone, so that texts which begin alike, such as
"a photo i took in San", share the states of all that they have in common: each distinct beginning
goes through the network once. Padding does not go through it at all, and of the last block only
the last token, which is all that is read.

Shape suffixes: B texts, S tokens of the longest, M distinct beginnings, D width, E width of an
embedding.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

TEXT_BATCH = 128
"""Texts at a time: larger ones are no faster on two cores, and cost memory."""
MLP_ROWS = 512
"""Tokens at a time: what the wide layer writes stays in the cache for the activation to read."""


def clip_text_features(model: Any, ids: Sequence[list[int]]) -> NDArray[np.float32]:  # noqa: ANN401
    """Projected features of texts, as `CLIPModel.get_text_features` has them.  -> [N, E].

    Args:
        model: a CLIPModel of transformers.
        ids: tokens of each text, the end token last, without padding.
    """
    found = np.empty((len(ids), model.text_projection.out_features), dtype=np.float32)
    in_order = sorted(range(len(ids)), key=ids.__getitem__)  # neighbours share the most
    with torch.inference_mode():
        for at in range(0, len(in_order), TEXT_BATCH):
            some = in_order[at : at + TEXT_BATCH]
            last_BD = _last_states(model.text_model, [ids[number] for number in some])
            found[some] = model.text_projection(last_BD).numpy()
    return found


def _last_states(side: Any, texts: list[list[int]]) -> Tensor:  # noqa: ANN401
    """The state of the last token of each text.  -> [B, D].

    Args:
        side: `text_model` of the network.
        texts: sorted.
    """
    tokens_M, places_M, node_BS = _beginnings(texts)
    count, longest = node_BS.shape
    lengths_B = torch.tensor([len(text) for text in texts])
    sees_SS = torch.ones(longest, longest, dtype=torch.bool).tril()
    # One row of each beginning in the texts laid out, to take its mixed state from.
    row_M = torch.empty(len(tokens_M), dtype=torch.long)
    inside_BS = torch.arange(longest) < lengths_B[:, None]
    row_M[node_BS[inside_BS]] = torch.arange(count * longest).view(count, longest)[inside_BS]
    last_B = lengths_B - 1
    end_B = node_BS[torch.arange(count), last_B]

    embeddings = side.embeddings
    state = embeddings.token_embedding(tokens_M) + embeddings.position_embedding.weight[places_M]
    blocks = side.encoder.layers
    for block in blocks[:-1]:
        queries, keys, values = (part[node_BS] for part in _products(block, state, state))
        mixed = _attend(block, queries, keys, values, sees_SS).flatten(0, 1)[row_M]
        state = _after(block, state, mixed)
    end = state[end_B]
    queries, keys, values = _products(blocks[-1], end, state)
    own_B1S = (torch.arange(longest) <= last_B[:, None])[:, None, None]
    mixed = _attend(blocks[-1], queries[:, None], keys[node_BS], values[node_BS], own_B1S)
    last_BD: Tensor = side.final_layer_norm(_after(blocks[-1], end, mixed[:, 0]))
    return last_BD


def _beginnings(texts: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct beginnings of sorted texts.  -> last token [M], its place [M], of each text [B, S].

    What lies past the end of a text points at beginning 0, and is never attended to.
    """
    tokens: list[int] = []
    places: list[int] = []
    node_BS = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    before: list[int] = []
    nodes: list[int] = []
    for number, text in enumerate(texts):
        pairs = zip(before, text, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        nodes = nodes[:same] + list(range(len(tokens), len(tokens) + len(text) - same))
        tokens.extend(text[same:])
        places.extend(range(same, len(text)))
        node_BS[number, : len(text)] = torch.tensor(nodes)
        before = text
    return torch.tensor(tokens), torch.tensor(places), node_BS


def _products(block: Any, asking: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
    """Queries of some tokens, keys and values of all."""
    normed, attention = block.layer_norm1(state), block.self_attn
    normed_asking = normed if asking is state else block.layer_norm1(asking)
    return attention.q_proj(normed_asking), attention.k_proj(normed), attention.v_proj(normed)


def _attend(block: Any, queries: Tensor, keys: Tensor, values: Tensor, sees: Tensor) -> Tensor:  # noqa: ANN401
    """Mixed values.  [B, Q, D], [B, S, D], [B, S, D] -> [B, Q, D]."""
    heads = block.self_attn.num_heads
    query, key, value = (
        part.unflatten(2, (heads, -1)).transpose(1, 2) for part in (queries, keys, values)
    )
    mixed = scaled_dot_product_attention(query, key, value, attn_mask=sees)
    return mixed.transpose(1, 2).flatten(2)


def _after(block: Any, state: Tensor, mixed: Tensor) -> Tensor:  # noqa: ANN401
    """What a block leaves of its input and the mixed values.  [M, D], [M, D] -> [M, D]."""
    state = state + block.self_attn.out_proj(mixed)
    for rows in state.split(MLP_ROWS):
        rows += block.mlp(block.layer_norm2(rows))
    return state
