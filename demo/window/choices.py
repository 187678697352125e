"""Fills the controls with what there is: bundles, engines, microphones, recordings. None of them is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from demo.settings import Settings
from demo.window import discover
from demo.window.actions import Actions
from demo.window.controls import SettingsBar, SourceBar
from edge.system.assets import sample_files


class Choices:
    """Looks in the background and hands over on the drawing thread, in ``drain``."""

    def __init__(
        self,
        actions: Actions,
        sources: SourceBar,
        settings: SettingsBar,
        play: Callable[[Sequence[Path]], None],
        bundles_known: Callable[[], None],
    ) -> None:
        self._actions, self._sources, self._settings = actions, sources, settings
        self._play, self._bundles_known = play, bundles_known
        self._background = discover.Background()
        self.do, self.drain = self._background.do, self._background.drain

    def look_around(self, settings: Settings) -> None:
        """For everything."""
        self.look_for_bundles(settings)
        self.do(discover.engines, self._settings.offer_engines)
        self.do(sample_files, self._offer_samples)
        self.look_for_microphones()

    def look_for_bundles(self, settings: Settings) -> None:
        """Beside the bundle of ``settings``."""

        def found(choices: list[discover.BundleChoice]) -> None:
            self._settings.offer_bundles(choices)
            self.offer_partners()
            self._bundles_known()

        self.do(lambda: discover.bundles(settings.bundle), found)

    def look_for_microphones(self) -> None:
        """That are plugged in now."""
        self.do(discover.microphones, self._sources.offer_microphones)

    def offer_partners(self) -> None:
        """To compare with."""
        bar = self._settings
        self._actions.compare.setEnabled(bar.partner is not None)
        self._actions.partner_menu.offer(bar.others, bar.partner, bar.settings.compare)

    def _offer_samples(self, paths: list[Path]) -> None:
        for path in paths:
            action = self._actions.samples.addAction(path.stem)
            action.triggered.connect(lambda _=False, path=path: self._play([path]))
        self._actions.samples.setEnabled(bool(paths))
