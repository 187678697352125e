"""Run a command as on another CPU, with tests/ on the path: ``python -m cpu_kinds AVX2 -- python -m pytest``."""

from __future__ import annotations

import os
import sys

from cpu_kinds import KINDS, environment, why_not


def main() -> None:
    names = "\n".join(f"  {kind.name}" for kind in KINDS)
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(f"usage: python -m cpu_kinds KIND -- COMMAND, where KIND begins one of\n{names}")
    found = [kind for kind in KINDS if kind.name.lower().startswith(sys.argv[1].lower())]
    if not found:
        sys.exit(f"error: expected the beginning of one of these, found {sys.argv[1]!r}:\n{names}")
    if reason := why_not(found[0]):
        sys.exit(f"error: {reason}")
    os.execvpe(sys.argv[3], sys.argv[3:], environment(found[0]))


if __name__ == "__main__":
    main()
