"""CLIP's text side, for many texts that begin alike.

The states of a text depend on what comes before them alone, so that what all texts share, such as
"a photo i took in", goes through the network once; padding does not go through it at all, and of
the last block only the last token, which is all that is read. On "a photo i took in Birmingham,
Alabama, United States." that leaves about half of the work.

Shape suffixes: B texts of one length, S tokens of their own, P shared tokens, D width, H heads,
E width of an embedding.
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

TEXT_BATCH = 256
"""Texts at a time: larger ones are no faster on two cores, and cost memory."""


def clip_text_features(model: Any, ids: Sequence[list[int]]) -> NDArray[np.float32]:  # noqa: ANN401
    """Projected features of texts, as `CLIPModel.get_text_features` has them.  -> [N, E].

    Args:
        model: a CLIPModel of transformers.
        ids: tokens of each text, the end token last, without padding.
    """
    shared = _shared_start(ids)
    found = np.empty((len(ids), model.text_projection.out_features), dtype=np.float32)
    by_length: dict[int, list[int]] = {}
    for number, tokens in enumerate(ids):
        by_length.setdefault(len(tokens), []).append(number)
    with torch.inference_mode():
        memory: list[tuple[Tensor, Tensor]] = []
        if shared:
            _run(model.text_model, torch.tensor([ids[0][:shared]]), 0, None, memory)
        for _, numbers in sorted(by_length.items()):
            for at in range(0, len(numbers), TEXT_BATCH):
                some = numbers[at : at + TEXT_BATCH]
                tokens_BS = torch.tensor([ids[number][shared:] for number in some])
                state_BD = _run(model.text_model, tokens_BS, shared, memory or None, [])
                found[some] = model.text_projection(state_BD).numpy()
    return found


def _shared_start(ids: Sequence[list[int]]) -> int:
    """How many first tokens all texts have in common; each keeps at least one of its own."""
    first, last = min(ids), max(ids)  # the two that differ soonest
    pairs = zip(first, last, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return min(same, min(map(len, ids)) - 1)


def _run(
    side: Any,  # noqa: ANN401
    tokens_BS: Tensor,
    start: int,
    before: list[tuple[Tensor, Tensor]] | None,
    memory: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """The state of the last token of each text.  -> [B, D].

    Args:
        side: `text_model` of the network.
        tokens_BS: tokens from `start` on.
        start: P.
        before: keys and values of the shared tokens, block by block; None where there are none.
        memory: takes those of these tokens.
    """
    count = tokens_BS.shape[1]
    places = side.embeddings.position_embedding.weight[start : start + count]
    state = side.embeddings.token_embedding(tokens_BS) + places
    sees_SK = torch.ones(count, start + count, dtype=torch.bool).tril(start)
    blocks = side.encoder.layers
    for number, block in enumerate(blocks):
        normed = block.layer_norm1(state)
        keys, values = (_heads(block.self_attn, part, normed) for part in ("k_proj", "v_proj"))
        memory.append((keys, values))
        if before is not None:
            shape = (len(tokens_BS), -1, -1, -1)
            keys = torch.cat([before[number][0].expand(shape), keys], dim=2)
            values = torch.cat([before[number][1].expand(shape), values], dim=2)
        asked = slice(None)
        if number == len(blocks) - 1:
            asked = slice(count - 1, None)
            state, normed = state[:, asked], normed[:, asked]
        queries = _heads(block.self_attn, "q_proj", normed)
        mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=sees_SK[asked])
        mixed = mixed.transpose(1, 2).flatten(2)
        state = state + block.self_attn.out_proj(mixed)
        state = state + block.mlp(block.layer_norm2(state))
    last_BD: Tensor = side.final_layer_norm(state)[:, -1]
    return last_BD


def _heads(attention: Any, part: str, normed_BSD: Tensor) -> Tensor:  # noqa: ANN401
    """One of the three products, cut into heads.  -> [B, H, S, D / H]."""
    product_BSD: Tensor = getattr(attention, part)(normed_BSD)
    return product_BSD.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
