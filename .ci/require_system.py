"""Before anything is installed: is this Python one that is tested, and are the system's libraries there?

Uses the standard library only and runs on any Python 3. Names every missing Debian or Ubuntu package at once.
"""

import ctypes
import glob
import importlib.util
import os
import shutil
import sys
import sysconfig

TESTED = ((3, 10), (3, 12))  # first and last
NEEDED_FREE = 6  # GiB for the environment

# What to load or to find, and the Debian package that brings it.
LIBRARIES = {
    "libEGL.so.1": "libegl1",  # MuJoCo renders without a screen
    "libGL.so.1": "libgl1",  # opencv-python
    "libgthread-2.0.so.0": "libglib2.0-0",  # opencv-python
    "libusb-1.0.so.0": "libusb-1.0-0",  # pyrealsense2
}
DRIVERS = ("/usr/lib/*/dri/*_dri.so", "/usr/lib/dri/*_dri.so", "/usr/lib/*/libgallium*.so", "/dev/nvidiactl")
HEADERS = {
    os.path.join(sysconfig.get_paths()["include"], "Python.h"): "python3-dev",  # evdev, which robosuite's input needs
    "/usr/include/linux/input.h": "linux-libc-dev",
}


def missing_packages() -> list:
    """Debian packages that must be installed first."""
    packages = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            packages.append(package)
    if not any(glob.glob(pattern) for pattern in DRIVERS):
        packages.append("libgl1-mesa-dri")  # what EGL draws with where there is no GPU
    packages += [package for path, package in HEADERS.items() if not os.path.exists(path)]
    if shutil.which("gcc") is None:
        packages.append("gcc")
    if importlib.util.find_spec("ensurepip") is None:
        packages.append("python3-venv")
    if shutil.which("git") is None:
        packages.append("git")
    return packages


def main() -> object:
    """Print what is missing and how to get it; the exit status says if all is there. --packages: only print those."""
    if "--packages" in sys.argv:
        return print(" ".join(missing_packages()))
    if not TESTED[0] <= sys.version_info[:2] <= TESTED[1]:
        return "Python {}.{} is not tested; use 3.10, 3.11 or 3.12: make PYTHON=python3.12 ...".format(
            *sys.version_info
        )
    if sys.platform != "linux":
        return f"robot-rl is made for Linux (Debian or Ubuntu), not {sys.platform}"
    free = shutil.disk_usage(".").free / 2**30
    if free < NEEDED_FREE:
        return f"only {free:.1f} GiB are free here; the environment takes up to {NEEDED_FREE} GiB"
    packages = missing_packages()
    if packages:
        return "these system packages are missing; install them and run make again:\n  sudo apt-get install {}".format(
            " ".join(packages)
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
