"""Whatever is wrong with a file of another project becomes one error that names the file and the key in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robot_rl.types import RobotRLError

POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def reading(where: str, known: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """RobotRLError that begins with `where`, a file and a key in it, for all that is raised within but what is `known`.

    h5py, zarr, pyarrow, PyAV and OpenCV raise two dozen kinds over files that are damaged or made up.
    """
    try:
        yield
    except RobotRLError:
        raise
    except known:
        raise
    except MemoryError as error:
        raise RobotRLError(f"{where} does not fit into memory; close other programs, or import a part of it") from error
    except Exception as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RobotRLError(f"{where} cannot be read ({what:.300}); copy it again, or convert it anew") from error


def require_file(path: Path) -> None:
    """Raise RobotRLError where `path` is missing, no regular file, or what git leaves in place of a large one."""
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "is missing"
            raise RobotRLError(f"{path} {what}; the copy is incomplete: copy or download it again")
        with path.open("rb") as file:
            begin = file.read(len(POINTER))
    except OSError as error:
        raise RobotRLError(f"{path} cannot be read ({error.strerror}); copy or download it again") from error
    if begin == POINTER:
        raise RobotRLError(
            f"{path} is a pointer of git-lfs, not the file itself: run `git lfs pull` in the clone, then import again"
        )
