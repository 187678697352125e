"""The errors a user can meet. Each message says what was expected, what was found and what to do next."""

from __future__ import annotations


class EdgeError(Exception):
    """Base of every error raised on purpose by ``edge``; a command line prints its text without a traceback."""


class AudioError(EdgeError, ValueError):
    """Audio that cannot be used: unreadable file, wrong shape or dtype, samples that are not finite."""


class TokenError(EdgeError, ValueError):
    """A token table that is not ``token id`` per line with ids 0..n-1."""


class BundleError(EdgeError, ValueError):
    """A bundle directory that is incomplete, altered or not readable by this version."""


class OptionsError(EdgeError, ValueError):
    """Decoding options outside what the bundle supports; the message lists what it supports."""


class BackendError(EdgeError, RuntimeError):
    """An inference engine that is missing, or graphs that do not fit their manifest."""


class StreamError(EdgeError, RuntimeError):
    """A stream used against its life cycle, such as audio after ``finish()``."""
