import pytest
import torch

from worker.errors import DeviceUnavailable
from worker.model.devices import choose_device, choose_dtype, device_title, dtype_name


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "mps", "", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DeviceUnavailable, match=f"device '{name}'"):
        choose_device(name)


def test_an_unknown_number_format_is_refused_instead_of_ignored() -> None:
    # Broke once: "float16" was taken for "auto".
    with pytest.raises(DeviceUnavailable, match="float16"):
        choose_dtype(torch.device("cpu"), "float16")


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32"])
def test_a_named_number_format_is_used(name: str) -> None:
    assert dtype_name(choose_dtype(torch.device("cpu"), name)) == name


def test_the_processor_is_described_with_its_threads() -> None:
    assert device_title(choose_device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"
