"""Where the demo's audio comes from: a microphone that survives, or a file at the pace of real time."""

from demo.audio.devices import Inputs, inputs
from demo.audio.files import FileSource
from demo.audio.level import LevelWatch
from demo.audio.source import MicrophoneError, Source
from demo.audio.supervisor import MicrophoneSource

__all__ = ["FileSource", "Inputs", "LevelWatch", "MicrophoneError", "MicrophoneSource", "Source", "inputs"]
