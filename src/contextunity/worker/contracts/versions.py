"""Get both versions: the protos here, and a folder, an image or a git reference. buf builds both."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from google.protobuf import descriptor_pb2

from .findings import RULES, ContractError, Finding, Place, wire_rule
from .schema import IncomparableError, Schema

__all__ = ["Buf", "Comparison", "ContractUsageError", "own_protos", "versions"]

_BREAKING = 100
_PATIENCE = 300.0
"""Timeout of buf or git, in seconds; the first build downloads modules from the BSR."""
_IMPORT_MARK = bytes.fromhex("d2f603020801")
"""`buf_extension {is_import: true}` for a file of an image; appended bytes override earlier fields."""


class ContractUsageError(ContractError):
    """The version to compare with is invalid, or there is no contract here."""


class Buf:
    """The program buf, run in one folder.

    Args:
        root: the folder with the buf.yaml.

    Raises:
        ContractUsageError: the folder has no buf.yaml.
        IncomparableError: buf is not installed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "buf.yaml").is_file():
            raise ContractUsageError(f"{root.resolve()} has no buf.yaml; give the folder that has it: --root FOLDER")
        beside = Path(sys.executable).parent / "buf"
        found = str(beside) if beside.is_file() else shutil.which("buf")
        if found is None:
            raise IncomparableError("buf is not installed; run pip install 'contextworker[contract]'")
        self._program = found

    def run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and wait for its end."""
        return _run([self._program, *arguments], folder or self.root)

    def modules(self, config: Path | None = None) -> list[str]:
        """Return the folders of the modules, relative to their buf.yaml; by default of this folder's buf.yaml."""
        folder = config.parent if config is not None else self.root
        done = self.run("config", "ls-modules", "--format", "json", folder=folder)
        if done.returncode:
            raise IncomparableError(f"{folder / 'buf.yaml'} cannot be read: {_first_line(done)}")
        return [str(json.loads(line)["path"]) for line in done.stdout.splitlines() if line.strip()]

    def build(self, source: str, what: str, folder: Path | None = None) -> bytes:
        """Build an image of all files of a source and their imports.

        Raises:
            IncomparableError: the source does not compile.
        """
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "image.binpb"
            done = self.run("build", source, "-o", str(out), folder=folder)
            if done.returncode:
                raise IncomparableError(f"{what}: {_first_line(done)}")
            return out.read_bytes()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        raise IncomparableError(f"{Path(command[0]).name} {command[1]} took more than {_PATIENCE:g} s") from None


def _first_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.removeprefix("Failure: ") for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    if not lines:
        return f"exit code {done.returncode}"
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both versions, and the findings of buf's own rules.

    Attributes:
        against: description of the old version, for people.
    """

    against: str
    old: Schema
    new: Schema
    wire: list[Finding]


def versions(root: Path, against: str | None) -> Comparison:
    """Read both versions, and compare them by buf's rules.

    Args:
        root: the folder with the buf.yaml.
        against: a folder, an image or a git reference; None means the folder `contract` next to buf.yaml.

    Raises:
        ContractUsageError: `against` is invalid.
        IncomparableError: a version does not compile, or buf is not installed.
    """
    buf = Buf(root)
    modules = buf.modules()
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        building = pool.submit(buf.build, ".", f"the protos in {_shown(root)} do not compile")
        name, reading = _reference(buf, against, modules, stack)
        new = building.result()
        old = reading()
        others = [root / module for module in modules if _ignored(root, module)]
        old_schema = Schema(old.image, old.locate, partial(_lies_in, others))
        new_schema = Schema(new, partial(_locate, root, modules), partial(_lies_in, others))
        wire = list(_wire(buf, modules, old_schema, new_schema, old.image))
    return Comparison(name, old_schema, new_schema, wire)


@dataclass(frozen=True, slots=True)
class _Old:
    image: bytes
    locate: Callable[[str], str]


def _reference(buf: Buf, against: str | None, modules: list[str], stack: ExitStack) -> tuple[str, Callable[[], _Old]]:
    """Return a description of the old version and a function that reads it; reject an invalid name at once."""
    if against is None:
        if not (buf.root / "contract").is_dir():
            raise ContractUsageError(
                "there is no folder contract/ to compare with; give --against FOLDER, IMAGE or GIT-REF, or create it "
                "with `contextworker contract release`"
            )
        against = str(buf.root / "contract")
    path = Path(against)
    if path.is_dir():
        if not any(path.rglob("*.proto")):
            raise ContractUsageError(f"{against} has no protos; write them with `contextworker contract release`")
        return _shown(path), partial(_read_folder, buf, path, stack)
    if path.is_file():
        return against, partial(_read_image, buf, path)
    if shutil.which("git") is not None:
        words = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{against}^{{commit}}"]
        commit = _run(words, buf.root).stdout.strip()
        if commit:
            return against, partial(_read_commit, buf, against, commit, stack)
    raise ContractUsageError(f"{against!r} is not a folder, an image or a known git reference")


def _read_image(buf: Buf, path: Path) -> _Old:
    image = buf.build(str(path.resolve()), f"{path} is not an image that buf can read")
    return _Old(image, lambda name: f"{path}:{name}")


def _read_folder(buf: Buf, folder: Path, stack: ExitStack) -> _Old:
    """Read a folder that `release` or `buf export` wrote; with a buf.yaml, read the protos of its modules."""
    config = folder / "buf.yaml"
    modules = buf.modules(config) if config.is_file() else ["."]
    if config.is_file():
        with suppress(IncomparableError):
            return _Old(buf.build(".", "", folder=folder), partial(_locate, folder, modules))
    places: dict[str, Path] = {}
    for module in modules:
        places |= {path.relative_to(folder / module).as_posix(): path for path in (folder / module).rglob("*.proto")}
    work = _workspace(buf, stack)
    for name, path in places.items():
        _write(work / "old" / name, path.read_bytes())
    image = _build_old(buf, work, f"the protos in {_shown(folder)} do not compile")
    return _Old(image, lambda name: _shown(places[name]) if name in places else name)


def _read_commit(buf: Buf, reference: str, commit: str, stack: ExitStack) -> _Old:
    """Read the protos of a commit, regardless of what is in the folder now."""
    listed = _run(["git", "ls-tree", "-r", "-z", "--name-only", commit, "--", "."], buf.root).stdout
    names = [name for name in listed.split("\0") if name.endswith(".proto") or name in ("buf.yaml", "buf.lock")]
    names = [name for name in names if "\n" not in name]  # buf rejects them too.
    if "buf.yaml" not in names:
        raise ContractUsageError(f"{reference} has no buf.yaml in this folder")
    work = _workspace(buf, stack)
    for name, content in _contents(buf.root, commit, names):
        _write(work / "tree" / name, content)
    places: dict[str, str] = {}
    found: dict[str, Path] = {}
    for module in buf.modules(work / "tree/buf.yaml"):
        base = work / "tree" / module
        for path in base.rglob("*.proto"):
            name = path.relative_to(base).as_posix()
            places[name] = f"{reference}:{path.relative_to(work / 'tree').as_posix()}"
            found[name] = path
    if not places:
        raise ContractUsageError(f"{reference} has no protos in the modules of its buf.yaml")
    # It may import files that git ignores, which only today's folder has. If it compiles alone, use it unchanged.
    with suppress(IncomparableError):
        return _Old(buf.build(".", "", folder=work / "tree"), lambda name: places.get(name, name))
    for name, path in found.items():
        _write(work / "old" / name, path.read_bytes())
    image = _build_old(buf, work, f"the protos of {reference} do not compile")
    return _Old(image, lambda name: places.get(name, name))


def _contents(root: Path, commit: str, names: list[str]) -> Iterator[tuple[str, bytes]]:
    # Relative to the folder, which may be below the top of the repository.
    wanted = "".join(f"{commit}:./{name}\n" for name in names).encode()
    done = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=root, input=wanted, capture_output=True, check=False, timeout=_PATIENCE
    )
    if done.returncode:
        raise IncomparableError(f"git cannot read {commit}: {done.stderr.decode(errors='replace').strip()}")
    rest = done.stdout
    for name in names:
        head, _, rest = rest.partition(b"\n")
        size = int(head.rsplit(b" ", 1)[1])
        yield name, rest[:size]
        rest = rest[size + 1 :]


def _workspace(buf: Buf, stack: ExitStack) -> Path:
    """Make a folder for an old version, with today's protos and their imports to import from."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    done = buf.run("export", ".", "-o", str(work / "imports"))
    if done.returncode:
        raise IncomparableError(f"the protos in {_shown(buf.root)} do not compile: {_first_line(done)}")
    (work / "old").mkdir()
    return work


def _build_old(buf: Buf, work: Path, what: str) -> bytes:
    old = {path.relative_to(work / "old") for path in (work / "old").rglob("*.proto")}
    for name in old:
        (work / "imports" / name).unlink(missing_ok=True)
    more = any((work / "imports").rglob("*.proto"))
    modules = ["old", "imports"] if more else ["old"]
    _write(work / "buf.yaml", json.dumps({"version": "v2", "modules": [{"path": name} for name in modules]}).encode())
    # Build only `old`: files that it does not import may conflict with it.
    return buf.build("old", what, folder=work)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _locate(root: Path, modules: list[str], name: str) -> str:
    for module in modules:
        if (root / module / name).is_file():
            return _shown(root / module / name)
    return name


def _lies_in(folders: list[Path], name: str) -> bool:
    return any((folder / name).is_file() for folder in folders)


def _shown(path: Path) -> str:
    """Return a path relative to the current folder if possible, for people."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def _wire(buf: Buf, modules: list[str], old: Schema, new: Schema, image: bytes) -> Iterator[Finding]:
    """Run buf's own rules from buf.yaml, one module at a time: buf compares an image with one module only."""
    released = descriptor_pb2.FileDescriptorSet.FromString(image)
    owner = {name: _module(buf.root, modules, name) for name in (file.name for file in released.file)}
    for module in modules:
        names = {name for name, holder in owner.items() if holder == module and name not in old.imported}
        if not names:
            continue
        with tempfile.TemporaryDirectory() as place:
            against = Path(place) / "against.binpb"
            against.write_bytes(b"".join(_entry(file, own=file.name in names) for file in released.file))
            words = ("breaking", module, "--against", str(against), "--exclude-imports", "--error-format", "json")
            done = buf.run(*words)
        if done.returncode not in (0, _BREAKING):
            raise IncomparableError(f"buf breaking could not compare {module}: {_first_line(done)}")
        for line in done.stdout.splitlines():
            told = json.loads(line)
            # The plugin has the same rules as this gate.
            if told["type"] not in RULES:
                yield _finding(told, buf.root, old, new)


def _module(root: Path, modules: list[str], name: str) -> str:
    """Return the module of a file; for a deleted file, the module with most files of its folder."""
    if len(modules) == 1:
        return modules[0]
    for module in modules:
        if (root / module / name).is_file():
            return module
    folder = Path(name).parent
    while folder != Path():
        for module in modules:
            if (root / module / folder).is_dir():
                return module
        folder = folder.parent
    return next((module for module in modules if not _ignored(root, module)), modules[0])


def _entry(file: descriptor_pb2.FileDescriptorProto, *, own: bool) -> bytes:
    """A file of an image."""
    content = file.SerializeToString() + (b"" if own else _IMPORT_MARK)
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"\x0a" + bytes(length) + content


_QUOTED = re.compile(r'"([^"]+)"')


def _finding(told: Mapping[str, object], root: Path, old: Schema, new: Schema) -> Finding:
    """Convert a finding of buf, with its declaration and the declaration's earlier place."""
    message, line = str(told["message"]), int(str(told.get("start_line", 0)))
    words = _QUOTED.findall(message)
    shown = _shown(root / str(told["path"])) if "path" in told else ""
    file = next((name for name in new.files if new.shown(name) == shown), None) if shown else None
    if file is None:
        gone = next((word for word in words if word in old.files), "")
        was = Place(old.shown(gone)) if gone else None
        return _of_buf(told, gone or shown, None, was)
    around = new.declared_at(file, line)
    scope = around or str(new.files[file].package)
    path = around or file
    # The text names a removed or renamed declaration; its place is in the old version.
    for base in dict.fromkeys((scope, scope.rpartition(".")[0])):
        found = next((f"{base}.{word}" for word in words if f"{base}.{word}" in old.declarations), None)
        if found is not None and (found not in new.declarations or str(told["type"]).endswith("_NO_DELETE")):
            path = found
            break
    was = old.place_of(path) if path != file else None
    if was is None and file in old.files:
        was = Place(old.shown(file))
    return _of_buf(told, path, Place(shown, line), was)


def _of_buf(told: Mapping[str, object], path: str, new: Place | None, old: Place | None) -> Finding:
    rule = wire_rule(str(told["type"]))
    return Finding(rule=rule, path=path, text=str(told["message"]), new=new, old=old, breaks=rule.breaks)


def own_protos(root: Path, schema: Schema, chosen: list[str], target: Path) -> dict[str, Path]:
    """Return the files to release by their name in imports: of the given modules, or of all that git does not ignore.

    Files that git ignores were collected from elsewhere, such as others' protos, so they are always skipped.

    Raises:
        ContractUsageError: a module is not in buf.yaml, or the files are in the target already.
    """
    modules = Buf(root).modules()
    for module in modules:
        place, goal = (root / module).resolve(), target.resolve()
        # If the module is the whole repository, buf.yaml excludes the baseline.
        if place.is_relative_to(goal) or (module != "." and goal.is_relative_to(place)):
            raise ContractUsageError(
                f"{target} and the protos in {module} overlap; release to another folder, such as contract"
            )
    wanted = [name.rstrip("/") for name in chosen]
    for name in wanted:
        if name not in modules:
            raise ContractUsageError(f"{name} is not a module of buf.yaml; the modules are {', '.join(modules)}")
    kept = wanted or [name for name in modules if not _ignored(root, name)]
    places = {
        name: root / module / name
        for module in kept
        for name in schema.files
        if name not in schema.imported and (root / module / name).is_file()
    }
    if not places:
        raise ContractUsageError(f"nothing to release in {', '.join(kept) or 'what git does not ignore'}")
    return places


def _ignored(root: Path, module: str) -> bool:
    if shutil.which("git") is None:
        return False
    return _run(["git", "check-ignore", "--quiet", module], root).returncode == 0
