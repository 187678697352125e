"""What the documents name exists: files, make targets, commands and options, names imported in snippets."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from places import ROOT

from u2edge.cli import app

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("u2edge", "edge", "quant", "calibration", "demo", "recipes", "tests", "models", "docs", ".ci")
ELSEWHERE = ("u2edge/demo.ini",)  # in the user's folder for settings
COMMANDS: Any = typer.main.get_command(app)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def spans(page: Path) -> list[str]:
    """Inline code, and lines of code blocks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh|bash)?\n(.*?)```", text, re.S)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return [*inline, *(line for block in blocks for line in block.splitlines())]


@each_page
def test_paths_exist(page: Path) -> None:
    missing = []
    for span in spans(page):
        for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]+", span):
            found = path.rstrip(".")
            here = [ROOT / found, ROOT / f"{found}.py", page.parent / found]
            if not any(place.exists() for place in here) and found not in ELSEWHERE and "NAME" not in found:
                missing.append(path)
    assert not missing


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert target.startswith("http") or (page.parent / target).exists(), target


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for span in spans(page):
        if match := re.match(r"(?:\w+=\S+ )*make ((?:[a-z]+ ?)+)(?:[A-Z#]|$| )", span.strip()):
            named = match[1].split()
            assert set(named) <= targets, span


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    for span in spans(page):
        for name, rest in re.findall(r"(?:^|[\s(|])(?<!from )u2edge ([a-z]+)\b([^#|;]*)", span):
            command = COMMANDS.commands.get(name)
            assert command is not None, span
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
            assert set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", rest)) <= known, span


@each_page
def test_snippets_import_what_exists(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), block
