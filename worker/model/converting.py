"""A merged torch model becomes one that OpenVINO computes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.jit._trace import TracerWarning

from worker.errors import BackendUnfit
from worker.model import openvino
from worker.model.devices import TWO, out_of_memory
from worker.model.encoding import Encoding
from worker.model.pretrained import HEADS, head_of


def convert(
    model: Any,
    number_format: str,
    tokenizer: Tokenizer,
    padding_id: int,
    *,
    encoding: Encoding,
    threads: int | None = None,
) -> openvino.Compiled:
    """A merged torch model in fp32, converted, and quantised too where the number format says so. It stays as it was.

    Raises:
        BackendUnfit: OpenVINO can't take this architecture, or whole numbers are too rough for it.
    """
    # Two rows of which one is padded: what a tracer sees only once, it takes for a constant.
    ids = torch.tensor([[3, 4, 5], [3, 4, 0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    try:
        with _quiet(), _without_head(model) as torch_head, torch.no_grad():
            torch_trunk = _Trunk(model)
            parts = [
                openvino.library().convert_model(_traced(part, example), example_input=example)
                for part, example in ((torch_trunk, (ids, mask)), (torch_head, (torch_trunk(ids, mask),)))
            ]
        trunk, head = (
            openvino.core().compile_model(part, "CPU", openvino.properties(precision, threads))
            for part, precision in zip(parts, (number_format, "fp32"), strict=True)
        )
        compiled = openvino.Compiled(trunk, head, tokenizer, padding_id)
        if number_format == TWO:
            # Here: it takes seconds to load.
            from worker.model.quantising import quantised

            return quantised(parts[0], compiled, head, encoding, threads=threads)
    except BackendUnfit:
        raise
    except Exception as error:
        # The tracer and the converter raise whatever the architecture makes them raise.
        if out_of_memory(error):
            raise
        raise BackendUnfit(
            f"openvino can't convert {type(model).__name__}: {openvino.first_line(error)}"
        ) from error
    return compiled


def _traced(part: torch.nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # torch would trace a second time to see whether that gives the same; here the probes say so.
    return TorchScriptPythonDecoder(part, example_input=example, trace_kwargs={"check_trace": False})


class _Trunk(torch.nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]


@contextlib.contextmanager
def _without_head(model: Any) -> Iterator[torch.nn.Module]:
    """While entered, the model's logits are what its head would get. Yields the head."""
    head = head_of(model)
    name = next(name for name in HEADS if getattr(model, name, None) is head)
    setattr(model, name, torch.nn.Identity())
    try:
        yield head
    finally:
        setattr(model, name, head)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what is known to be said while a model is traced, and means nothing here, from the user."""
    from transformers import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    # The tracer looks at every property of the model, and one of them announces a loss that nobody asked for.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            # OpenVINO traces, which torch would like to be exported; its own way through torch.export takes longer.
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            # Branches that are fixed by tracing show in the probes, which are scored alone and as a batch.
            warnings.filterwarnings("ignore", category=TracerWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
