"""What stands where a file is expected: links, pipes, devices, deep folders, and files that change while they are
read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.fuzz.guard import Input

Made = tuple[str, Callable[[Path], Input], bool]
CSV = b"text,label\n" + b"a good film,pos\n" * 20_000


def cases() -> Iterator[Made]:
    """Name, maker, and whether it takes long."""
    for device in ("/dev/zero", "/dev/full", "/dev/null", "/dev/urandom", "/proc/self/mem", "/dev"):
        for surface in ("file", "corrections", "base", "adapter"):
            if device != "/dev/urandom" and (device, surface) != ("/dev", "file"):
                yield f"{device} as {surface}", _place(device, surface), False
    yield "a folder of devices", _place("/dev/shm/..", "file"), False
    for name in ("a.csv", "a.json"):
        for surface in ("file", "corrections"):
            yield (
                f"a socket as {surface} {name}",
                lambda folder, name=name, surface=surface: _socket(folder, name, surface),
                False,
            )
            yield (
                f"a directory as {surface} {name}",
                lambda folder, name=name, surface=surface: _directory(folder, name, surface),
                False,
            )
            yield (
                f"a link to itself as {surface} {name}",
                lambda folder, name=name, surface=surface: _loop(folder, name, surface),
                False,
            )
    yield "a name that is too long", _place("/tmp/" + "x" * 5000, "file"), False
    yield "a pipe that nobody fills", _file("a.csv", b"", piped=0), False
    for how in ("grow", "shrink", "vanish", "replace"):
        for name, content in (
            ("a.csv", CSV),
            ("a.json", b'[{"text": "fine"}' + b',{"text": "fine"}' * 20_000 + b"]"),
        ):
            yield f"{name} {how}s while it is read", _file(name, content, changing=how), False
    yield "a file name that is no Unicode", _odd_name, False
    yield "a directory with links out", _links, False
    yield "a directory of odd files", _odd_files, False
    yield "a directory of odd names", _odd_names, False
    yield "folders 1,500 deep", _deep, False
    yield (
        "corrections of 5 GB",
        lambda folder: _sparse(folder, "a.csv", "corrections", b"job_id,row_no,correction\n"),
        False,
    )
    yield "annotations of 5 GB", lambda folder: _sparse(folder, "a.json", "corrections", b"["), False
    yield (
        "annotations of many empty lists",
        lambda folder: _file("a.json", b"[" + b"[]," * 10_000_000 + b"1]", "corrections")(folder),
        True,
    )
    yield "a csv of 5 GB of NULs", lambda folder: _sparse(folder, "a.csv", "file", b"text\n"), True


def _place(path: str, surface: str) -> Callable[[Path], Input]:
    return lambda folder: Input(surface, Path(path), {"dry": True})


def _file(name: str, content: bytes, surface: str = "file", **options: Any) -> Callable[[Path], Input]:
    def make(folder: Path) -> Input:
        (folder / name).write_bytes(content)
        return Input(surface, folder / name, options)

    return make


def _socket(folder: Path, name: str, surface: str) -> Input:
    before = Path.cwd()
    os.chdir(folder)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
    finally:
        os.chdir(before)
    return Input(surface, folder / name)


def _directory(folder: Path, name: str, surface: str) -> Input:
    (folder / name).mkdir()
    return Input(surface, folder / name)


def _loop(folder: Path, name: str, surface: str) -> Input:
    (folder / name).symlink_to(name)
    return Input(surface, folder / name)


def _odd_name(folder: Path) -> Input:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9\n.csv"))
    path.write_bytes(b"text,label\na good film,pos\na bad film,neg\n")
    return Input("file", path)


def _links(folder: Path) -> Input:
    place = folder / "reviews"
    (place / "pos").mkdir(parents=True)
    (place / "pos" / "a.txt").write_text("a good film")
    (folder / "secret.txt").write_text("a secret")
    for name, target in (
        ("out.txt", "../secret.txt"),
        ("passwd.txt", "/etc/passwd"),
        ("self.txt", "self.txt"),
        ("zero.txt", "/dev/zero"),
        ("in.txt", "pos/a.txt"),
        ("none.txt", "none"),
        ("up", ".."),
        ("mem.txt", "/proc/self/mem"),
    ):
        (place / name).symlink_to(target)
    return Input("file", place)


def _odd_files(folder: Path) -> Input:
    place = folder / "reviews"
    place.mkdir()
    os.mkfifo(place / "pipe.txt")
    _socket(place, "socket.txt", "file")
    (place / "a.txt").write_text("a good film")
    (place / "empty.txt").write_bytes(b"")
    (place / "nul.txt").write_bytes(b"a\0b")
    (place / "bad.txt.gz").write_bytes(b"\x1f\x8bxxxx")
    (place / "half.txt").write_bytes("fine".encode("utf-16")[:-1])
    (place / "folder.txt").mkdir()
    with (place / "huge.txt").open("wb") as file:
        file.truncate(300 * 1024**2)
    return Input("file", place)


def _odd_names(folder: Path) -> Input:
    place = folder / "reviews"
    place.mkdir()
    for name in (
        b"caf\xe9.txt",
        b"a\nb.txt",
        b"\xed\xa0\x80.txt",
        b"\xff\xfe.txt",
        b"=1+1.txt",
        b"-.txt",
        b"x" * 251 + b".txt",
    ):
        Path(os.fsdecode(os.fsencode(place) + b"/" + name)).write_text("a good film")
    return Input("file", place)


def _deep(folder: Path) -> Input:
    place = folder / "reviews"
    place.mkdir()
    (place / "a.txt").write_text("a good film")
    at = os.open(place, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("b.txt", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    return Input("file", place)


def _sparse(folder: Path, name: str, surface: str, head: bytes) -> Input:
    with (folder / name).open("wb") as file:
        file.write(head)
        file.truncate(5 * 1024**3)
    return Input(surface, folder / name, {"dry": True})
