"""``python -m u2edge.doctor [BUNDLE]``: the examination when ``u2edge`` itself does not start, because a package that
it imports is broken."""

from __future__ import annotations

import sys
from pathlib import Path

from edge.system.assets import default_bundle
from u2edge.doctor.report import run

if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]) if len(sys.argv) > 1 else default_bundle(), report=True))
