"""The demo without a window: audio in, recognizers at work, events out. Qt-free; one worker thread per session."""

from demo.session.session import Session
from demo.session.transcript import Transcript, Utterance

__all__ = ["Session", "Transcript", "Utterance"]
