"""What the notebook's tests share: a kernel of their own."""

import pytest
from jupyter_client.manager import start_new_kernel

from tests.notebook.kernels import Page


@pytest.fixture
def page():
    """A front end with a new kernel."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield Page(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
