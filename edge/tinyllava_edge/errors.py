"""The exceptions of the edge package.

    TinyLlavaError
    ├── BundleError       a bundle that cannot be opened as it is
    ├── BackendMissing    a runtime that is not installed
    ├── PictureError      bytes that are not a usable picture
    ├── PromptTooLong     a question that does not fit the model's context
    ├── AskError          a request that cannot be carried out (carries a code for the answer)
    └── ConfigError       a configuration file that is wrong

Every message says what failed, the value seen and the next step, in one line.
"""

from __future__ import annotations


class TinyLlavaError(Exception):
    """Base of every error that a user can mend; the commands print it in one line and exit 1."""


class BundleError(TinyLlavaError):
    """A bundle is missing, damaged, unsafe or too new."""


class BackendMissing(TinyLlavaError):
    """A runtime is not installed; the message names the pip extra that brings it."""


class PictureError(TinyLlavaError):
    """The bytes are no picture, are truncated, or exceed a limit."""


class PromptTooLong(TinyLlavaError):
    """The prompt and its answer do not fit the context; refused before any decoding."""


class AskError(TinyLlavaError):
    """A request that is refused; ``code`` is the machine-readable reason in the answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ConfigError(TinyLlavaError):
    """The gateway's configuration is wrong; the message names the field and the line."""
