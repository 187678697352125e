"""All sections together: what people read, what machines read, and what may leave the machine."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge.system.files import write_json
from edge.system.versions import own_version
from u2edge.doctor import audio, bundle, cpu, display, engines, speed
from u2edge.doctor.section import Problem, Section, guarded, plural

REPORT = Path("u2edge-doctor.json")
_MARKS = {"error": "✗", "warning": "!", "note": "·"}


def examine(directory: Path, listen: bool, seconds: float) -> list[Section]:
    """Every section, in the order they are shown; none can stop the others.

    Args:
        directory: the bundle.
        listen: whether the default microphone is opened for a second.
        seconds: of measuring per chunk size.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before this command adds to it
    known: list[cpu.Cpu] = []

    def processor() -> Section:
        known.append(cpu.read_cpu())
        return cpu.examine(known[0])

    sections = [guarded("processor", processor), guarded("engines", engines.examine)]
    sections.append(guarded("microphones", lambda: audio.examine(listen)))
    sections.append(guarded("display", display.examine))
    here = known[0] if known else None
    sections.append(guarded("bundle", lambda: bundle.examine(directory, here), "error"))
    found = sections[-1].facts
    if not found.get("ok"):
        sections.append(Section("speed", {"runs": []}, ["not measured: the bundle cannot be used"]))
        return sections
    devices = list(sections[1].facts.get("openvino_devices", {}))
    scheme = "+".join(found["schemes"])
    cores = os.cpu_count() or 1
    sections.append(
        guarded(
            "speed", lambda: speed.examine(directory, speed.ways_to_run(devices), seconds, scheme, load, cores), "error"
        )
    )
    return sections


def exit_code(sections: list[Section]) -> int:
    """1 when something prevents the main job, else 0."""
    return int(any(problem.level == "error" for section in sections for problem in section.problems))


def as_text(sections: list[Section]) -> str:
    """For people: facts by section, then what is wrong and its fix, worst first, then the verdict."""
    width = max(len(section.title) for section in sections) + 2
    lines = []
    for section in sections:
        for number, line in enumerate(section.lines):
            lines.append(f"{'' if number else section.title:<{width}}{line}")
    problems = [problem for section in sections for problem in section.problems]
    lines.append("")
    for level in _MARKS:
        for problem in problems:
            if problem.level == level:
                lines.append(f"{_MARKS[level]} {level}: {problem.text}")
                if problem.fix:
                    lines.append(f"    fix: {problem.fix}" if level != "note" else f"    {problem.fix}")
    return "\n".join([*lines, "", _summary(problems)])


def _summary(problems: list[Problem]) -> str:
    counts = {level: sum(problem.level == level for problem in problems) for level in ("error", "warning")}
    listed = " and ".join(plural(n, level) for level, n in counts.items() if n)
    if counts["error"]:
        return f"{listed}: this machine cannot transcribe with this bundle yet"
    return f"{listed}; transcribing works" if listed else "all is well"


def as_data(sections: list[Section], directory: Path) -> dict[str, Any]:
    """For machines: facts by section, problems, exit code; without anything that names a person, and of the bundle's
    ``directory`` its own name only."""
    data = {
        "u2edge": own_version(),
        "exit_code": exit_code(sections),
        "problems": [
            {"section": section.title, **asdict(problem)} for section in sections for problem in section.problems
        ],
        "sections": {section.title: section.facts for section in sections},
    }
    folders = [f"{folder}{os.sep}" for folder in (directory.resolve().parent, directory.parent) if folder.name]
    return dict(anonymous(data, folders))


def anonymous(value: Any, folders: Sequence[str] = ()) -> Any:
    """``value`` without ``folders``, home paths, user names and possessives such as "Anna's headset"."""
    if isinstance(value, dict):
        return {str(key): anonymous(item, folders) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [anonymous(item, folders) for item in value]
    if not isinstance(value, str):
        return value
    for folder in folders:
        value = value.replace(folder, "")
    home = str(Path.home())
    if len(home) > 1:
        value = re.sub(re.escape(home) + r"(?![\w-])", "~", value)
    value = re.sub(r"(/home/|/Users/|\\Users\\)[^/\\\s:;,'\"]+", r"\1USER", value)
    value = re.sub(r"[^\s'’]+['’]s\b", "USER's", value)
    user = _user()
    if len(user) >= 3 and user not in ("root", "user"):  # shorter ones are parts of words
        value = re.sub(rf"(?<![A-Za-z]){re.escape(user)}(?![A-Za-z])", "USER", value, flags=re.IGNORECASE)
    return value


def write_report(data: dict[str, Any], path: Path = REPORT) -> None:
    """``data`` as JSON, whole or not at all."""
    write_json(path, data)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for its user
        return ""


def run(
    bundle: Path, as_json: bool = False, report: bool = False, microphone: bool = True, seconds: float = 2.0
) -> int:
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
