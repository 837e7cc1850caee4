"""Opening rasters: only what may be opened, with every failure told in one line."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ovrs.errors import DataError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

# What a local file may be. Others (WMS, STAC lists, …) are local files that lead elsewhere.
_LOCAL_DRIVERS = ["GTiff", "VRT", "JP2OpenJPEG", "PNG", "JPEG", "BMP", "GIF", "WEBP", "HFA", "ENVI", "EHdr", "NITF"]
_CACHE = 32 << 20  # bytes of decoded blocks; GDAL's own choice is a share of the machine's memory
_KEPT_OPEN = 4  # rasters per thread

_local = threading.local()


def check_path(path: str | Path, allow_remote: bool = False) -> str:
    """Return the path as text if it may be opened.

    Raises:
        DataError: it is remote and must not be, or no file is there.
    """
    text = str(path)
    if "://" in text or text.lower().startswith("/vsi"):
        if allow_remote:
            return text
        raise DataError(f"{text} is not a local file; allow such paths with --allow-remote, or download it.")
    try:
        os.stat(text)
    except FileNotFoundError:
        broken = os.path.islink(text)
        raise DataError(f"{text} {'is a link to nothing' if broken else 'does not exist'}.") from None
    except OSError as error:
        raise DataError(f"{text} cannot be read: {error.strerror}.") from None
    if not os.path.isfile(text):
        raise DataError(f"{text} is not a file; give the raster itself.")
    return text


@contextmanager
def environment(allow_remote: bool = False) -> Iterator[None]:
    """Set GDAL's cache, and keep local files (VRTs) from leading elsewhere unless that is allowed."""
    import rasterio

    settings: dict[str, object] = {"GDAL_CACHEMAX": _CACHE, "GDAL_VRT_ENABLE_PYTHON": "NO"}
    if not allow_remote:
        settings["CPL_VSIL_CURL_ALLOWED_FILENAME"] = "none"
    with rasterio.Env(**settings):
        yield


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what rasterio raises in the block into a DataError about ``path``."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"{path} cannot be read, it is damaged or of no known kind ({cause}); fetch it again."
        ) from None


@contextmanager
def opened(path: str, allow_remote: bool = False) -> Iterator[DatasetReader]:
    """Open a raster for the block; it stays open for the thread's next blocks.

    Raises:
        DataError: it cannot be opened, or something in the block cannot be read.
    """
    from rasterio.io import DatasetReader

    kept: OrderedDict[str, DatasetReader] = _local.__dict__.setdefault("kept", OrderedDict())
    with environment(allow_remote), readable(path):
        dataset = kept.pop(path, None)
        if dataset is None or dataset.closed:
            dataset = DatasetReader(path, driver=None if allow_remote else _LOCAL_DRIVERS)
        kept[path] = dataset
        while len(kept) > _KEPT_OPEN:
            kept.popitem(last=False)[1].close()
        yield dataset


def forget(path: str) -> None:
    """Close a raster that this thread kept open."""
    dataset = _local.__dict__.get("kept", {}).pop(path, None)
    if dataset is not None:
        dataset.close()
