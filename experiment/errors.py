"""The errors that a command tells its user in a line or two."""

from __future__ import annotations


class ConfigError(Exception):
    """An experiment that cannot be: a line or two that name the option at fault and the way out."""


class DataError(Exception):
    """The data cannot be had or used: a line or two that name what is at fault and the way out."""


class RunError(Exception):
    """A run cannot start or go on; the message says why and what to do."""
