"""Write a bundle folder whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tinyllava_edge.manifest import FILE_NAME, Component, Manifest, write_manifest
from tinyllava_export.checkpoints.weight_files import file_sha256
from tinyllava_export.errors import ExportError

PARTIAL_SUFFIX = ".partial"
REPLACED_SUFFIX = ".replaced"
SCRATCH = ".scratch"


@dataclass
class BundleDraft:
    """A bundle in the making: ``folder`` becomes the bundle, ``scratch`` is thrown away."""

    folder: Path
    components: list[Component] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """A folder for intermediate files, on the same disk."""
        return self.folder / SCRATCH

    def add(self, role: str, file: str, quantization: str | None = None) -> Component:
        """Hash a file that has been written into ``folder`` and list it under ``role``."""
        path = self.folder / file
        component = Component(
            role=role,
            file=file,
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
            quantization=quantization,
        )
        self.components.append(component)
        return component

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest, last of all; again where fidelity has been added."""
        write_manifest(manifest, self.folder)


@contextmanager
def drafted_bundle(out: Path, *, force: bool) -> Iterator[BundleDraft]:
    """A draft beside ``out`` that is renamed to it when the block ends without an error.

    On an error, or without a manifest, nothing is left behind and an older bundle at ``out``
    stays. Raises ``ExportError`` where ``out`` exists and ``force`` is not set, or is no bundle.
    """
    refuse_existing(out, force=force)
    partial = out.with_name(out.name + PARTIAL_SUFFIX)
    _remove(partial)
    draft = BundleDraft(partial)
    try:
        draft.scratch.mkdir(parents=True)
        yield draft
        shutil.rmtree(draft.scratch)
        if not (partial / FILE_NAME).is_file():
            raise ExportError(f"{partial}: no {FILE_NAME} was written; the bundle is not complete")
        _move_into_place(partial, out)
    finally:
        _remove(partial)


def refuse_existing(out: Path, *, force: bool) -> None:
    """Raise ``ExportError`` where writing to ``out`` would lose something."""
    if not out.exists() and not out.is_symlink():
        return
    if not force:
        raise ExportError(f"{out}: exists; choose another --out, or replace it with --force")
    if not (out / FILE_NAME).is_file() or out.is_symlink():
        raise ExportError(f"{out}: exists and is no bundle, so --force leaves it alone; remove it")


def _move_into_place(partial: Path, out: Path) -> None:
    """Rename; an older bundle is moved aside first, so that one of the two is always whole."""
    replaced = out.with_name(out.name + REPLACED_SUFFIX)
    if out.exists():
        _remove(replaced)
        out.rename(replaced)
    partial.rename(out)
    _remove(replaced)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
