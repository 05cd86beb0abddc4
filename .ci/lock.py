"""Write `requirements.lock`: every package of the environment with the SHA-256 of the file it comes from.

pip works out what it would install (`--dry-run --report`) and tells the hash of each file. The lock is of one Python on
one platform from one index: a CPU build of PyTorch has another hash than the one on PyPI. So none is kept in the
repository; make one where you trust the network, and install it elsewhere with `make locked`. Standard library only.
"""

import json
import subprocess
import sys


def lines(report: dict) -> list:
    """Of pip's report, a line "name==version --hash=sha256:..." for every package but our own, which has no hash."""
    found, without = [], []
    for item in report["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        origin = item["download_info"]
        if "dir_info" in origin:
            continue  # this project
        hashes = origin.get("archive_info", {}).get("hashes", {})
        if "sha256" not in hashes:
            without.append(f"{name}=={version}")
            continue
        found.append(f"{name.lower()}=={version} --hash=sha256:{hashes['sha256']}")
    if without:
        sys.exit(f"the index tells no SHA-256 of {', '.join(without)}; use one that does, such as PyPI")
    return sorted(found)


def main() -> None:
    """Arguments: the lock to write, then what `pip install` is given."""
    target, *wanted = sys.argv[1:]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    told = subprocess.run([*command, *wanted], stdout=subprocess.PIPE, check=False)
    if told.returncode:
        sys.exit(told.returncode)
    with open(target, "w") as file:
        file.write("\n".join(lines(json.loads(told.stdout))) + "\n")


if __name__ == "__main__":
    main()
