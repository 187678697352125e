"""What to compare with: the bundles beside the one in use, or any other folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QWidget

from demo.window.discover import BundleChoice


class PartnerMenu(QMenu):
    """Lists the partners found, the one in use checked. Buttons and menus may share it."""

    chosen = Signal(object)  # Path, or None for comparing no more

    def __init__(self, choose_folder: QAction, parent: QWidget | None = None) -> None:
        super().__init__("Compare &with", parent)
        self.setToolTipsVisible(True)
        self._choose_folder = choose_folder
        self.offer([], None, None)

    def offer(self, found: Sequence[BundleChoice], partner: Path | None, compared: Path | None) -> None:
        """Fill the menu.

        Args:
            found: bundles that can stand beside the one in use.
            partner: the one that comparing would take.
            compared: the one that is compared now; None: none.
        """
        self.clear()
        for choice in found:
            action = self.addAction(choice.label if choice.label == choice.path.name else _named(choice))
            action.setToolTip(f"{choice.path}: {choice.scheme}, {choice.megabytes:.1f} MB")
            action.setCheckable(True)
            action.setChecked(choice.path == partner)
            action.triggered.connect(lambda _=False, path=choice.path: self.chosen.emit(path))
        if not found:
            self.addAction("No other bundle of this model is beside the one in use").setEnabled(False)
        self.addSeparator()
        self.addAction(self._choose_folder)
        off = self.addAction("&Off")
        off.setEnabled(compared is not None)
        off.triggered.connect(lambda _=False: self.chosen.emit(None))


def _named(choice: BundleChoice) -> str:
    return f"{choice.label}  ({choice.path.name})".replace("&", "&&")
