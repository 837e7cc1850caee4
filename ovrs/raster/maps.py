"""From a list of rasters to maps, with a report of what became of each."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ovrs import __version__
from ovrs.errors import DataError
from ovrs.files import replacing
from ovrs.raster.executors import Executor
from ovrs.raster.job import Job, check_not_foreign, file_endings
from ovrs.raster.opening import check_path
from ovrs.raster.options import RasterOptions
from ovrs.raster.pipeline import run

REPORT = "report.json"


def map_rasters(
    sources: Sequence[str | Path], folder: str | Path, executor: Executor, options: RasterOptions | None = None
) -> list[dict[str, Any]]:
    """Map rasters; a bad one does not keep the others from being mapped.

    Of a raster ``STEM.*`` the folder gets ``STEM_labels.tif`` (a cloud-optimised GeoTIFF on the raster's own pixels)
    with its style ``STEM_labels.qml``, ``STEM_areas.csv``, ``STEM_manifest.json`` and what the options ask for. The
    report of all is ``report.json``.

    Args:
        sources: the rasters.
        folder: where results go; made if needed.
        executor: reads and scores.
        options: see there.

    Returns:
        A dict per raster, in order: ``input``, ``status`` (``done``, ``skipped`` or ``failed``), ``error``, ``files``,
        ``notes``, ``classes`` with their pixels and areas, …

    Raises:
        DataError: there is no raster, the folder cannot be written to, or its ``report.json`` is something else.
    """
    from rasterio.errors import NotGeoreferencedWarning

    options, folder = options or RasterOptions(), Path(folder)
    if not sources:
        raise DataError("there is no raster to map; give at least one path.")
    _check_folder(folder)
    if not options.overwrite and not _is_report(folder / REPORT):
        check_not_foreign([folder / REPORT])
    began = time.time()
    outcomes: list[dict[str, Any]] = []
    try:
        with warnings.catch_warnings():  # here, not where rasters are opened: it holds for all threads
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            for outcome in run(_starts([str(source) for source in sources], folder, executor, options), executor):
                outcomes.append(outcome)
    finally:
        report = {
            "version": __version__,
            "model": executor.info.identity,
            "seconds": round(time.time() - began, 1),
            "rasters": outcomes,
            "not_reached": [str(source) for source in sources[len(outcomes) :]],
        }
        with replacing(folder / REPORT) as temporary:
            temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    return outcomes


def _starts(
    sources: Sequence[str], folder: Path, executor: Executor, options: RasterOptions
) -> Iterator[tuple[str, Callable[[], Job]]]:
    """Yield (raster, what begins its job), once all paths were looked at."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        by_name[_stem(source)].append(source)
    inputs = {os.path.realpath(source) for source in sources}
    endings = file_endings(options)
    errors: dict[str, str] = {}
    for source in sources:
        same = by_name[_stem(source)]
        if len(same) > 1:
            errors[source] = f"{len(same)} rasters are called {_stem(source)} ({', '.join(same)}); "
            errors[source] += "their maps would overwrite each other. Rename them, or give them folders of their own."
        elif over := inputs & {os.path.realpath(folder / f"{_stem(source)}_{ending}") for ending in endings}:
            errors[source] = f"the map of {source} would overwrite {over.pop()}; choose another folder (--out)."
        else:
            try:
                check_path(source, options.allow_remote)
            except DataError as error:
                errors[source] = str(error)
    for source in sources:
        if source in errors:
            yield source, partial(_refuse, errors[source])
        else:
            yield source, partial(Job, source, folder, _stem(source), executor.info, options)


def _refuse(error: str) -> Job:
    raise DataError(error)


def _stem(source: str) -> str:
    return PurePosixPath(source.split("?")[0]).stem


def _is_report(path: Path) -> bool:
    """Return whether nothing but a report of maps would be replaced."""
    if not os.path.lexists(path):
        return True
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # no text, or no JSON
        return False
    return isinstance(content, dict) and {"rasters", "not_reached"} <= content.keys()


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"{folder} cannot be written to: {error.strerror}. Choose another folder (--out).") from None
