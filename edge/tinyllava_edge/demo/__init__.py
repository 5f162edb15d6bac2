"""The shipped bundle and what shows it off."""

from __future__ import annotations

from pathlib import Path

from tinyllava_edge.errors import BundleError
from tinyllava_edge.manifest import FILE_NAME

_FOLDER = Path(__file__).parent / "bundle"


def demo_bundle() -> Path:
    """The folder of the bundle that travels with the package.

    Raises ``BundleError`` where an installation came without it.
    """
    if not (_FOLDER / FILE_NAME).is_file():
        raise BundleError(
            f"{_FOLDER}: the demo bundle is missing; install tinyllava-edge again, or give the "
            "folder of another bundle"
        )
    return _FOLDER
