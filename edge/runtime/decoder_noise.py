"""Keeps the lines that decoders in C write to the terminal away from it; other lines pass."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_NOISE = re.compile(rb"libmpg123|^(?:Warning|Note): |^\s*$")
_lock = threading.Lock()


@contextlib.contextmanager
def quiet_decoder() -> Iterator[None]:
    """Take what is written to file descriptor 2 meanwhile; afterwards write again what is not a decoder's.

    libmpg123 writes dozens of lines for a harmless MP3, and libsndfile offers no way to tell it not to.
    """
    with _lock:
        try:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            real = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        try:
            with tempfile.TemporaryFile() as caught:
                os.dup2(caught.fileno(), 2)
                try:
                    yield
                finally:
                    os.dup2(real, 2)
                    caught.seek(0)
                    for line in caught.read().splitlines(keepends=True):
                        if not _NOISE.search(line):
                            os.write(2, line)
        finally:
            os.close(real)
