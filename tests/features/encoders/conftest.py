"""One thread for torch, where it is installed: seeds mean the same everywhere, and a busy machine is not waited for."""

from collections.abc import Iterator

import pytest

from tests.features.encoders.members import HAS_TORCH


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> Iterator[None]:
    if not HAS_TORCH:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
