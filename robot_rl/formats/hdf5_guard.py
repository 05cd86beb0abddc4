"""What an HDF5 file may ask of who reads it: nothing outside itself, nothing twice, and no more memory than it means.

An HDF5 file can name other files as the place of its data (external storage, external links, virtual datasets), one of
its own objects by two names (hard and soft links: a demonstration would count double), and a dataset of 8 TiB takes no
room in it at all. Everything that lies in a file is looked at before anything is read.
"""

from __future__ import annotations

import math
import os
from typing import Any

import h5py

from robot_rl import unpacking
from robot_rl.types import RobotRLError

MOST_UNPACKED = 4 * unpacking.GIB  # of all datasets, be the file as small as it likes
LARGEST_ATTRIBUTE = 64 * 2**20  # bytes; the model of a robosuite scene takes 1e5
MOST_STRINGS = 1000  # of an attribute; each of them could be the same large one
RECORDED = ("observations", "action", "data")  # where demonstrations are: ALOHA's, and all others'
KINDS = "biuf"  # numpy's: numbers and booleans
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)  # what h5py raises for torn objects


def require_safe(file: h5py.File) -> None:
    """Raise RobotRLError where `file` reads other files, or unpacks to absurdly much; it names the object."""
    try:
        found = _judge(file)
    except DAMAGE as error:
        raise RobotRLError(f"{file.filename} is not a whole HDF5 file ({error}); copy or download it again") from error
    if found:
        raise found


def require_numbers(dataset: h5py.Dataset, where: str) -> None:
    """Raise RobotRLError unless `dataset` holds numbers or booleans: objects and text are no recording."""
    try:
        kind = dataset.dtype.kind
    except DAMAGE as error:
        raise RobotRLError(f"{where}: the type of '{dataset.name}' cannot be read ({error}); copy it again") from error
    if kind not in KINDS:
        raise RobotRLError(f"{where}: '{dataset.name}' holds {dataset.dtype}, not numbers; convert the file again")


def _judge(file: h5py.File) -> RobotRLError | None:
    """What is wrong with `file`; errors are returned, as HDF5 calls back through C."""
    size, wrong, total = os.path.getsize(file.filename), list[RobotRLError](), 0

    def link(name: bytes, info: Any) -> bool:
        if info.type not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):  # a soft one stays in the file
            wrong.append(_outside(file, name.decode(errors="replace"), "a link into another file"))
        return bool(wrong)

    def item(name: str, found: Any) -> bool:
        nonlocal total
        try:
            _require_attributes(file, found, size)
            if isinstance(found, h5py.Dataset):
                total += _unpacked(file, found, size)
        except RobotRLError as error:
            wrong.append(error)
        return bool(wrong) or None  # type: ignore[return-value]  # h5py goes on at None alone

    file.id.links.visit(link, info=True)
    if not wrong:
        _require_single(file)
        _require_attributes(file, file["/"], size)
        file.visititems(item)
    if not wrong and total > max(MOST_UNPACKED, unpacking.RATIO * size):
        wrong.append(_absurd(file, "its datasets", f"{size:,} bytes for {total / unpacking.GIB:,.2f} GiB"))
    return wrong[0] if wrong else None


def _require_single(file: h5py.File) -> None:
    """Raise where two names among the demonstrations, by hard or soft links, lead to one object."""
    names: dict[tuple[int, int], str] = {}
    left = [key for key in RECORDED if key in file]
    while left:
        item = file.get(name := left.pop())
        if item is None:  # a soft link to nowhere
            continue
        about = h5py.h5o.get_info(item.id)
        if (first := names.setdefault((about.fileno, about.addr), name)) != name:
            raise RobotRLError(
                f"{file.filename}: {name} is a link to {first}: the same data would count double. Remove one of them "
                f"(`del file['{name}']` in h5py), or copy the data where they are meant twice (Group.copy)"
            )
        if isinstance(item, h5py.Group):
            left += [f"{name}/{key}" for key in sorted(item, reverse=True)]


def _unpacked(file: h5py.File, dataset: h5py.Dataset, size: int) -> int:
    """Bytes of a dataset in the memory."""
    made = dataset.id.get_create_plist()
    if made.get_external_count():
        raise _outside(file, dataset.name, "stored in another file")
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise _outside(file, dataset.name, "a view of other files")
    for number in (made.get_filter(i)[0] for i in range(made.get_nfilters())):
        if number not in FILTERS:
            known = ", ".join(FILTERS.values())
            raise RobotRLError(f"{file.filename}: {dataset.name} is packed by filter {number}; known are {known}")
    what, stored = f"{file.filename}: {dataset.name}", min(dataset.id.get_storage_size(), size)
    width = dataset.id.get_type().get_size()
    count = math.prod(dataset.shape or ())
    unpacking.require_plausible(count * width, stored, what)
    if count and dataset.chunks:
        unpacking.require_plausible(math.prod(dataset.chunks) * width, stored, f"a chunk of {what}")
    return count * width


def _require_attributes(file: h5py.File, item: Any, size: int) -> None:
    for index in range(h5py.h5a.get_num_attrs(item.id)):
        attribute = h5py.h5a.open(item.id, index=index)
        where = f"the attribute '{attribute.name.decode(errors='replace')}' of {item.name}"
        count = math.prod(attribute.shape)
        if count * attribute.get_type().get_size() > min(LARGEST_ATTRIBUTE, size):
            raise _absurd(file, where, f"{size:,} bytes for an attribute of {count:,} values")
        if isinstance(attribute.get_type(), (h5py.h5t.TypeStringID, h5py.h5t.TypeVlenID)) and count > MOST_STRINGS:
            raise _absurd(file, where, f"{count:,} texts")


def _outside(file: h5py.File, name: str, why: str) -> RobotRLError:
    return RobotRLError(
        f"{file.filename}: {name} is {why}; nothing outside the file is read. Copy the data into it (h5repack, or "
        "h5py's Group.copy with expand_external=True)"
    )


def _absurd(file: h5py.File, what: str, why: str) -> RobotRLError:
    return RobotRLError(
        f"{file.filename}: {what}: {why}; it is damaged or was made to fill the memory. Nothing of it was read"
    )
