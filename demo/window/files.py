"""Asking for files and folders without stopping the window, and writing a transcript."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFileDialog, QWidget

from demo.events import Notice, Severity
from demo.session import Transcript, subtitles
from demo.window.remembered import Remembered

_AUDIO = "Recordings (*.wav *.flac *.ogg *.opus *.mp3 *.aiff *.aif *.au *.caf *.w64);;All files (*)"


def ask_recordings(parent: QWidget, remembered: Remembered, then: Callable[[list[Path]], None]) -> QFileDialog:
    """Audio files to play."""
    dialog = _dialog(parent, "Open recordings", QFileDialog.FileMode.ExistingFiles, remembered, "recordings")
    dialog.setNameFilter(_AUDIO)
    dialog.filesSelected.connect(lambda names: then([Path(name) for name in names]))
    dialog.open()
    return dialog


def ask_folder(
    parent: QWidget, remembered: Remembered, title: str, purpose: str, then: Callable[[Path], None]
) -> QFileDialog:
    """A folder that exists; ``purpose`` is what ``Remembered`` calls it."""
    dialog = _dialog(parent, title, QFileDialog.FileMode.Directory, remembered, purpose)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    dialog.fileSelected.connect(lambda name: then(Path(name)))
    dialog.open()
    return dialog


def ask_save(parent: QWidget, remembered: Remembered, then: Callable[[Path], None]) -> QFileDialog:
    """Where the transcript goes; .txt, .srt and .json are written beside each other."""
    title = "Save the transcript (TXT, SRT and JSON)"
    dialog = _dialog(parent, title, QFileDialog.FileMode.AnyFile, remembered, "transcripts")
    dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
    dialog.setNameFilter("Transcript (*.txt)")
    dialog.setDefaultSuffix("txt")
    dialog.selectFile("transcript.txt")
    dialog.fileSelected.connect(lambda name: then(Path(name)))
    dialog.open()
    return dialog


def save(path: Path, transcript: Transcript) -> Notice:
    """Write ``path`` and its siblings, one set per source; says how it went. Not for the drawing thread."""
    stem = path.with_suffix("") if path.suffix.lower() in (".txt", ".srt", ".json") else path
    sources = sorted({utterance.source for utterance in transcript.utterances})
    if not sources:
        return Notice("file", "There is no finished utterance to save yet.")
    try:
        for number, source in enumerate(sources, 1):
            name = stem if len(sources) == 1 else stem.with_name(f"{stem.name}-{number}")
            subtitles.save(name, [u for u in transcript.utterances if u.source == source])
    except OSError as error:
        return Notice("file", f"The transcript was not saved: {error.strerror} ({error.filename})", Severity.ERROR)
    many = f" ({len(sources)} recordings, numbered)" if len(sources) > 1 else ""
    return Notice("file", f"Saved {stem}.txt, .srt and .json{many}")


def _dialog(
    parent: QWidget, title: str, mode: QFileDialog.FileMode, remembered: Remembered, purpose: str
) -> QFileDialog:
    """Begins where the user went last time."""
    dialog = QFileDialog(parent, title)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setFileMode(mode)
    whole = mode is QFileDialog.FileMode.Directory
    folder = remembered.folder(purpose)
    if folder is not None:
        dialog.setDirectory(str(folder.parent if whole else folder))
        if whole:
            dialog.selectFile(folder.name)

    def chosen(names: list[str]) -> None:
        remembered.visited(purpose, Path(names[0]) if whole else Path(names[0]).parent)

    dialog.filesSelected.connect(chosen)
    return dialog
