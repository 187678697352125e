"""Bundle directories: checked when opened, complete or absent when written."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge.runtime.errors import BundleError, TokenError
from edge.runtime.manifest import GraphInfo, Manifest
from edge.runtime.tokens import SymbolTable
from edge.system.files import umask

MANIFEST, TOKENS = "manifest.json", "tokens.txt"
_MAX_TEXT = 16 << 20  # bytes of a manifest or token table; more is not one
_CONVERT = "convert the checkpoint again: u2edge convert CKPT -o BUNDLE"


@dataclass(frozen=True)
class Bundle:
    """A converted model: graphs, tokens and the manifest that describes them."""

    directory: Path
    manifest: Manifest
    tokens: SymbolTable

    @property
    def encoder(self) -> Path:
        return self.directory / self.manifest.encoder.file

    @property
    def decoder(self) -> Path | None:
        """None: CTC only."""
        return self.directory / self.manifest.decoder.file if self.manifest.decoder else None

    @property
    def graphs(self) -> tuple[Path, ...]:
        """Encoder and, unless the model is CTC only, decoder."""
        return tuple(self.directory / graph.file for graph in self.manifest.graphs)

    @classmethod
    def open(cls, directory: Path | str, verify: bool = True) -> Bundle:
        """Open and check a bundle.

        Args:
            directory: where ``manifest.json`` is.
            verify: compare the SHA-256 of every file (about 1 s per GB); False still checks names, sizes and tokens.

        Raises:
            BundleError: no bundle, another schema version, a file that is missing, altered, of the wrong size or
                outside the directory.
        """
        directory = Path(directory)
        if not directory.is_dir():
            found = "a file" if directory.exists() else "nothing"
            raise BundleError(
                f"{directory}: expected a bundle directory, found {found}; make one: u2edge convert CKPT -o BUNDLE"
            )
        path = directory / MANIFEST
        if not path.is_file():
            hint = "this is a WeNet experiment; " if (directory / "train.yaml").exists() else ""
            raise BundleError(f"{directory}: expected {MANIFEST}, found none; {hint}u2edge convert CKPT -o BUNDLE")
        _check_inside(directory, MANIFEST)
        try:
            manifest = Manifest.from_json(_read_text(path))
        except BundleError as error:
            raise type(error)(f"{directory}: {error}") from None
        for name in dict.fromkeys([*manifest.checksums, *(g.file for g in manifest.graphs), TOKENS]):
            _check_inside(directory, name)
        _check_listed(directory, manifest)
        for graph in manifest.graphs:
            _check_size(directory, graph)
        for name, expected in manifest.checksums.items():
            # Another token table of the same size would give wrong text without any other sign.
            if not verify and name != TOKENS:
                continue
            actual = sha256(directory / name)
            if actual != expected:
                what = "not the table the model was trained with" if name == TOKENS else "the file was altered"
                raise BundleError(
                    f"{directory / name}: expected SHA-256 {expected}, found {actual}: "
                    f"{what} or damaged; copy the bundle again, or {_CONVERT}"
                )
        try:
            tokens = SymbolTable.parse((directory / TOKENS).read_bytes(), str(directory / TOKENS))
            tokens = tokens.joined(manifest.tokens.joining)
        except TokenError as error:
            raise BundleError(str(error)) from None
        if len(tokens) != manifest.tokens.size:
            raise BundleError(
                f"{directory / TOKENS}: expected {manifest.tokens.size} tokens, found {len(tokens)}; {_CONVERT}"
            )
        return cls(directory, manifest, tokens)


def write_bundle(directory: Path | str, build: Callable[[Path], Manifest], overwrite: bool = False) -> Bundle:
    """Write a bundle so that ``directory`` is complete or absent, also after a crash.

    Args:
        directory: the new bundle.
        build: writes graphs and ``tokens.txt`` into the empty directory it is given and returns the manifest.
            Checksums, and graph sizes that are 0, are filled in here.
        overwrite: replace a bundle that is already there; anything else there is never touched.

    Returns:
        The bundle, opened and verified.

    Raises:
        BundleError: something is in the way, or what ``build`` wrote is not a valid bundle.
    """
    directory = Path(directory).resolve()  # "." too has a parent to stage the bundle in
    _check_free(directory, overwrite)
    directory.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        staging.chmod(0o777 & ~umask())
        manifest = build(staging)
        names = sorted(p.relative_to(staging).as_posix() for p in staging.rglob("*") if not p.is_dir())
        manifest = dataclasses.replace(
            manifest,
            checksums={name: sha256(staging / name) for name in names if name != MANIFEST},
            encoder=_sized(staging, manifest.encoder),
            decoder=_sized(staging, manifest.decoder) if manifest.decoder else None,
        )
        (staging / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        Bundle.open(staging)
        _check_free(directory, overwrite)
        if directory.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
            directory.rename(old / "bundle")
            try:
                staging.rename(directory)
            except OSError:
                (old / "bundle").rename(directory)
                raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            staging.rename(directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle.open(directory, verify=False)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_TEXT:
        raise BundleError(f"{path.name}: expected at most {_MAX_TEXT} bytes, found {size}; {_CONVERT}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path.name}: expected UTF-8 text, found byte {error.start} = "
            f"0x{error.object[error.start]:02x}; {_CONVERT}"
        ) from None


def _check_inside(directory: Path, name: str) -> None:
    """``name`` is a plain relative path, and the file it reaches is inside ``directory``."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or "\\" in name or ":" in name or "\0" in name:
        raise BundleError(
            f"{directory / MANIFEST}: expected file names inside the bundle, found {name!r}; "
            f"do not use this bundle, {_CONVERT}"
        )
    path = directory / name
    if not path.exists() and not path.is_symlink():
        raise BundleError(f"{path}: expected by {MANIFEST}, found nothing; copy the bundle again, or {_CONVERT}")
    if not path.resolve().is_relative_to(directory.resolve()):
        raise BundleError(
            f"{path}: expected a file inside the bundle, found a link to {path.resolve()}; "
            "copy the bundle with its links followed: cp -rL"
        )
    if not path.is_file():
        raise BundleError(f"{path}: expected a file, found a directory or a broken link; {_CONVERT}")


def _check_listed(directory: Path, manifest: Manifest) -> None:
    """Whatever the runtime reads has a checksum."""
    needed = [TOKENS]
    for graph in manifest.graphs:
        needed.append(graph.file)
        if (directory / f"{graph.file}.data").exists():
            needed.append(f"{graph.file}.data")
    for name in needed:
        if name not in manifest.checksums:
            raise BundleError(f"{directory / MANIFEST}: expected a checksum of {name}, found none; {_CONVERT}")


def _graph_size(directory: Path, graph: GraphInfo) -> int:
    data = directory / f"{graph.file}.data"
    return (directory / graph.file).stat().st_size + (data.stat().st_size if data.exists() else 0)


def _sized(directory: Path, graph: GraphInfo) -> GraphInfo:
    """``graph`` with its size, when the file exists and the size was left at 0."""
    if graph.bytes or not (directory / graph.file).is_file():
        return graph
    return dataclasses.replace(graph, bytes=_graph_size(directory, graph))


def _check_size(directory: Path, graph: GraphInfo) -> None:
    found = _graph_size(directory, graph)
    if graph.bytes and found != graph.bytes:
        raise BundleError(
            f"{directory / graph.file}: expected {graph.bytes} bytes with its .data file, found {found}: "
            f"the copy is not complete; copy the bundle again, or {_CONVERT}"
        )


def _check_free(directory: Path, overwrite: bool) -> None:
    """``directory`` does not exist, is an empty directory, or is a bundle that may be replaced."""
    if not directory.exists() and not directory.is_symlink():
        return
    if directory.is_symlink() or not directory.is_dir():
        raise BundleError(f"{directory}: expected a new directory, found a file or link; choose another name with -o")
    with contextlib.suppress(StopIteration):
        next(directory.iterdir())
        if not (directory / MANIFEST).is_file():
            raise BundleError(
                f"{directory}: expected a bundle or nothing, found other files; choose another name with -o"
            )
        if not overwrite:
            raise BundleError(f"{directory}: a bundle is already there; choose another name with -o, or --force")
