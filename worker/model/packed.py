"""A sequence classifier without padding: reviews stand one behind the other, and each attends to itself alone.

In batches of 256, padding makes 1.26 times as many tokens of IMDB's reviews, and 5.2 times as many of short ones.
transformers lets a model use an attention function of ours, and hands it what we give the model: where each review
begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from worker.model.encoding import flat_ids
from worker.model.fused import fuse
from worker.model.pretrained import head_of

Ints = npt.NDArray[np.int64]

NAME = "loracle_packed"

FLASH_DTYPES = (torch.bfloat16, torch.float16)
"""What the CUDA kernel for sequences of different lengths takes."""


class PackedClassifier:
    """The logits of a merged model of a family that is known here; `head` is computed in fp32, as in the padded way.

    From here on the model can't be called the padded way any more: `unpack` undoes it. With `fused` its layers are
    those of `worker.model.fused`.
    """

    def __init__(self, model: Any, *, fused: bool = False) -> None:
        self._model = model
        self._unfuse = fuse(model) if fused else lambda: None
        self._pool = _FAMILIES[model.config.model_type]
        self._usual = model.config._attn_implementation
        AttentionInterface.register(NAME, _attend)
        # There is no mask: nothing is padded.
        AttentionMaskInterface.register(NAME, lambda *_, **__: None)
        model.set_attn_implementation(NAME)

    @staticmethod
    def knows(model: Any) -> bool:
        """Whether this family can be packed: its positions can be given, and we know what its head looks at."""
        return (
            model.config.model_type in _FAMILIES
            and not getattr(model.config, "is_decoder", False)
            and getattr(model.config, "position_embedding_type", "absolute") == "absolute"
        )

    def unpack(self) -> None:
        """The model is as it was."""
        self._unfuse()
        self._model.set_attn_implementation(self._usual)

    def __call__(self, token_ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits (B, labels) on the model's device, in the order of `token_ids`. Nothing waits for the device."""
        device = self._model.device
        lengths = np.array([len(row) for row in token_ids])
        flat = flat_ids(token_ids)
        arrays = (flat, self._positions(flat, lengths), np.cumsum([0, *lengths], dtype=np.int32))
        ids, positions, ends = (torch.from_numpy(one) for one in arrays)
        if device.type == "cuda":
            # Only copies from pinned memory run beside the computation; torch keeps the buffers for the next time.
            ids, ends, positions = ids.pin_memory(), ends.pin_memory(), positions.pin_memory()
        ids, ends, positions = (one.to(device, non_blocking=True) for one in (ids, ends, positions))
        states = self._model.base_model(
            input_ids=ids[None], position_ids=positions[None], review_ends=ends, longest=int(lengths.max())
        ).last_hidden_state[0]
        logits: torch.Tensor = self._pool(self._model, states, ends)
        return logits

    def _positions(self, ids: Ints, lengths: Ints) -> Ints:
        """Counted in each review anew, from 0; RoBERTa's follow the padding's own, which counts for nothing."""
        counts, padding = np.ones_like(ids), -1
        if self._model.config.model_type in _COUNTED_FROM_PADDING:
            padding = self._model.base_model.embeddings.padding_idx
            counts = (ids != padding).astype(ids.dtype)
        found = counts.cumsum()
        before = (found - counts)[lengths.cumsum() - lengths]
        return (found - before.repeat(lengths)) * counts + padding


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    review_ends: torch.Tensor,
    longest: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within each review. Queries, keys and values are (1, heads, tokens, width); (1, tokens, heads, width)
    comes back, as transformers has it."""
    q, k, v = query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)
    # Both ends count: a window of 64 on each side comes as 65.
    window = -1 if sliding_window is None else sliding_window - 1
    if q.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        found: Any = varlen_attn(
            q, k, v, review_ends, review_ends, longest, longest, scale=scaling, window_size=(window, window)
        )
    else:
        found = _one_by_one(q, k, v, review_ends, scaling, window)
    return found[None], None


def _one_by_one(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: torch.Tensor, scaling: float | None, window: int
) -> torch.Tensor:
    """What the CUDA kernel computes, plainly: the processor's way, by which the rest is tested without a card."""
    parts = []
    for begin, end in zip(ends.tolist()[:-1], ends.tolist()[1:], strict=True):
        query, key, value = (each[begin:end].transpose(0, 1)[None] for each in (q, k, v))
        at = torch.arange(end - begin)
        near = None if window < 0 else (at[:, None] - at).abs() <= window
        found = scaled_dot_product_attention(query, key, value, attn_mask=near, scale=scaling)
        parts.append(found[0].transpose(0, 1))
    return torch.cat(parts)


def _first_states(states: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    return states[ends[:-1].long()]


def _bert(model: Any, states: torch.Tensor, ends: torch.Tensor) -> Any:
    pooled = model.base_model.pooler(_first_states(states, ends)[:, None])
    return head_of(model)(pooled)


def _roberta(model: Any, states: torch.Tensor, ends: torch.Tensor) -> Any:
    # Its head picks the first of the tokens that it is handed.
    return head_of(model)(_first_states(states, ends)[:, None])


def _modernbert(model: Any, states: torch.Tensor, ends: torch.Tensor) -> Any:
    if model.config.classifier_pooling == "cls":
        pooled = _first_states(states, ends)
    else:
        # Unsafe: to check the lengths would wait for the device.
        pooled = torch.segment_reduce(states.float(), "mean", lengths=ends.diff().long(), unsafe=True)
        pooled = pooled.to(states.dtype)
    return head_of(model)(model.head(pooled))


_FAMILIES: dict[str, Callable[[Any, torch.Tensor, torch.Tensor], Any]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "modernbert": _modernbert,
}
_COUNTED_FROM_PADDING = frozenset(("roberta", "xlm-roberta", "camembert"))
