"""Open a bundle folder and know that its files are the ones its manifest lists."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tinyllava_edge.errors import BundleError
from tinyllava_edge.manifest import FILE_NAME, Component, Manifest, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

UNPICKLED_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Bundle:
    """A bundle whose paths and sizes have been checked; hashes have not, see ``verify_bundle``."""

    folder: Path
    manifest: Manifest

    def has(self, role: str) -> bool:
        """Whether the bundle has a component of this role."""
        return any(component.role == role for component in self.manifest.components)

    def path(self, role: str) -> Path:
        """The file of a role. Raises ``BundleError`` naming the roles there are."""
        for component in self.manifest.components:
            if component.role == role:
                return self.folder / component.file
        roles = ", ".join(component.role for component in self.manifest.components)
        raise BundleError(f"{self.folder}: no component of role {role!r}, it has {roles}")


def open_bundle(folder: Path) -> Bundle:
    """Read the manifest and check every listed file's path, kind and size.

    Refuses paths that leave the folder, links inside it, anything that would need unpickling,
    files or roles listed twice, missing files and wrong sizes. Raises ``BundleError``.
    """
    _refuse_link(folder, FILE_NAME)
    manifest = read_manifest(folder)
    _refuse_duplicates(folder, manifest)
    for component in manifest.components:
        _check_name(folder, component.file)
        _check_file(folder, component)
    return Bundle(folder, manifest)


def verify_bundle(bundle: Bundle, progress: Callable[[int, int], None] | None = None) -> None:
    """Compare every file's sha256 with the manifest's.

    ``progress`` is called with bytes done and bytes in all. Raises ``BundleError`` at the first
    file that differs.
    """
    total = sum(component.bytes for component in bundle.manifest.components)
    done = 0
    for component in bundle.manifest.components:
        digest = hashlib.sha256()
        try:
            with (bundle.folder / component.file).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
        except OSError as error:
            raise BundleError(
                f"{bundle.folder}: {component.file} cannot be read ({error.strerror}); give this "
                "user the right to, or copy the bundle again"
            ) from None
        if digest.hexdigest() != component.sha256:
            raise BundleError(
                f"{bundle.folder}: {component.file} has sha256 {digest.hexdigest()[:12]}…, the "
                f"manifest says {component.sha256[:12]}…; copy or export the bundle again"
            )


def _refuse_duplicates(folder: Path, manifest: Manifest) -> None:
    """Names are compared without case: some file systems cannot tell them apart."""
    files: set[str] = set()
    roles: set[str] = set()
    for component in manifest.components:
        if component.role in roles:
            raise BundleError(
                f"{folder}: role {component.role!r} is listed twice; export the bundle again"
            )
        if component.file.casefold() in files:
            raise BundleError(
                f"{folder}: file {component.file!r} is listed twice; export the bundle again"
            )
        roles.add(component.role)
        files.add(component.file.casefold())


def _check_name(folder: Path, file: str) -> None:
    """Judge the name alone, by the rules of both POSIX and Windows, before touching the disk."""
    unsafe = (
        not file.isprintable()
        or "\\" in file
        or ":" in file
        or file.startswith("~")
        or any(part in ("", ".", "..") for part in file.split("/"))
    )
    if unsafe:
        raise BundleError(
            f"{folder}: component path {file!r} leaves the bundle or is not a plain relative path; "
            "do not use this bundle, get it again from a source you trust"
        )
    if file.casefold() == FILE_NAME:
        raise BundleError(f"{folder}: the manifest lists itself; export the bundle again")
    if PurePosixPath(file).suffix.lower() in UNPICKLED_SUFFIXES:
        raise BundleError(
            f"{folder}: {file} would need unpickling, which can run code; export the bundle again "
            "as GGUF, ONNX or safetensors"
        )


def _check_file(folder: Path, component: Component) -> None:
    _refuse_link(folder, component.file)
    path = folder / component.file
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(
            f"{folder}: {component.file} cannot be opened ({error.strerror}); "
            "copy or export the bundle again"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{folder}: {component.file} is not a file; export the bundle again")
    if status.st_size != component.bytes:
        raise BundleError(
            f"{folder}: {component.file} has {status.st_size} bytes, the manifest says "
            f"{component.bytes}; copy or export the bundle again"
        )


def _refuse_link(folder: Path, file: str) -> None:
    """The folder itself may be a link (``current -> v3``); nothing inside it may."""
    path = folder
    for part in file.split("/"):
        path = path / part
        try:
            is_link = path.is_symlink()
        except OSError as error:
            raise BundleError(
                f"{folder}: {file[:60]!r}: {error.strerror}; export it again"
            ) from None
        if is_link:
            raise BundleError(
                f"{folder}: {path.relative_to(folder)} is a link; copy the bundle with its files "
                "(cp -rL) and open the copy"
            )
