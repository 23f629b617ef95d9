"""Tests wait for what other processes do."""

import time
from collections.abc import Callable
from typing import Any


def until(what: str, found: Callable[[], Any], seconds: float = 600, pause: float = 0.1) -> Any:
    """The first answer that is not empty."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"after {seconds} s there is no {what}"
        time.sleep(pause)
    return answer
