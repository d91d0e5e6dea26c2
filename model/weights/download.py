"""Downloads files, with resumption and a timeout."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from pathlib import Path

#: Seconds without data after which a server counts as unreachable.
TIMEOUT_S = 20


def download(url: str, target: Path) -> None:
    """Download `url` to `target`; resumes from the partial file `target`.part of an earlier attempt.

    Raises OSError where the network fails, also in the middle of the file.
    """
    partial = target.with_name(target.name + ".part")
    start = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            # A server without range support sends the whole file, with status 200.
            resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT
            length = response.headers.get("Content-Length")
            expected = None if length is None else int(length) + (start if resumes else 0)
            with partial.open("ab" if resumes else "wb") as stream:
                shutil.copyfileobj(response, stream)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # The earlier attempt had the whole file, or more than there is now; the caller's hash check decides.
        expected = start
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    size = partial.stat().st_size
    if expected is not None and size != expected:
        raise OSError(f"the connection broke off after {size} of {expected} bytes")
    partial.replace(target)
