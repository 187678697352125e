"""``u2edge doctor``: examine this machine and say what to change."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge.doctor.report import REPORT, as_data, as_text, examine, exit_code, write_report


def run(bundle: Path, as_json: bool, report: bool, microphone: bool, seconds: float) -> int:
    """Examine and print.

    Args:
        bundle: the bundle to check and to measure.
        as_json: print JSON instead of text.
        report: also write ``u2edge-doctor.json`` into the current folder.
        microphone: open the default microphone for a second.
        seconds: of measuring per chunk size.

    Returns:
        0, or 1 when something prevents transcribing with the bundle.

    Raises:
        OSError: the report cannot be written.
    """
    if not as_json:
        listening = "listening for 1 s, then " if microphone else ""
        print(f"examining this machine, {listening}measuring speed: about half a minute", file=sys.stderr, flush=True)
    sections = examine(bundle, microphone, seconds)
    data = as_data(sections, bundle)
    print(json.dumps(data, indent=1, ensure_ascii=False) if as_json else as_text(sections), flush=True)
    if report:
        write_report(data)
        print(f"wrote {REPORT}; attach it to an issue (it holds no user names and no home paths)", file=sys.stderr)
    return exit_code(sections)
