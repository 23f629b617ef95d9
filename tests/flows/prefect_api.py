"""A Prefect server's own answers, for tests that ask it from outside."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

TRIES = 10


def asked(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the server on this port of loopback answers; asked again while its database is busy, as Prefect's own client does."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", data, headers)
    for pause in range(TRIES):
        try:
            return json.loads(urllib.request.urlopen(request, timeout=60).read())
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        except TimeoutError:
            pass
        time.sleep(pause)
    raise TimeoutError(f"{path}: the server is busy")
