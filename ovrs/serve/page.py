"""The page: what is typed and clicked goes to a session, and what the session says is shown."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from ovrs.errors import ConfigError
from ovrs.serve.service import Service, reply
from ovrs.serve.session import FILES, Session

_TITLE = "OVRS: from an image and a list of words to a map"
_WORDS = "building|house|roof\nroad\ntree\nwater"
_ENDINGS = [".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"]
_CSS = """
.ovrs-error {color: #b91c1c; font-weight: 600; margin: 0}
.ovrs-table td, .ovrs-table th {padding: 2px 10px; text-align: right}
.ovrs-table .name {text-align: left}
.ovrs-swatch {display: inline-block; width: 1em; height: 1em; border: 1px solid #777; vertical-align: -2px}
.ovrs-files a {margin-right: 1em; text-decoration: underline}
footer {display: none !important}
"""


def add_page(app: FastAPI, service: Service) -> FastAPI:
    """Put the page at the root of the application.

    Args:
        app: as of :func:`ovrs.serve.rest.build_app`; the page's downloads are its files.
        service: answers.
    """
    # What the browser sends goes where the service removes it.
    os.environ["GRADIO_TEMP_DIR"] = str(service.folder / "page")
    page = build_page(service)
    page.has_launched = True  # only then does gradio check that a file which a browser names was uploaded by it
    page.queue(max_size=service.limits.waiting, default_concurrency_limit=service.limits.waiting + 1)
    fonts = ["system-ui", "sans-serif"]
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=service.limits.bytes,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        theme=gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"]),
        css=_CSS,
    )


def build_page(service: Service) -> gr.Blocks:
    """Return the page."""
    limits = service.limits
    with gr.Blocks(
        title="OVRS", analytics_enabled=False, delete_cache=(600, int(limits.idle)), fill_width=True
    ) as page:
        key = gr.State(None, time_to_live=limits.idle, delete_callback=service.forget)
        gr.Markdown(f"## {_TITLE}")
        status = gr.HTML(elem_id="status")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                file = gr.File(
                    label=f"Image or GeoTIFF (up to {limits.megabytes:g} MiB, {limits.megapixels:g} megapixels)",
                    file_types=_ENDINGS,
                    height=120,
                    elem_id="file",
                )
                words = gr.Textbox(
                    _WORDS, label="Classes, one per line; | separates synonyms", lines=6, elem_id="words"
                )
                threshold = gr.Slider(0, 1, 0, step=0.01, label="Weaker pixels become 'other' (0: none)")
                ask = gr.Button("Map", variant="primary", elem_id="ask")
                with gr.Row():
                    name = gr.Dropdown([], label="Colour of", elem_id="name")
                    colour = gr.ColorPicker(label="Colour", elem_id="colour")
                with gr.Accordion("Bands", open=False):
                    bands = gr.Textbox(
                        "", label="For red, green, blue, such as 4,3,2; before the image", elem_id="bands"
                    )
            with gr.Column(scale=3):
                view = gr.Image(
                    label="Click a pixel for its scores", interactive=False, format="png", buttons=[], elem_id="view"
                )
                opacity = gr.Slider(0, 1, 0.5, step=0.05, label="Opacity of the map", elem_id="opacity")
                legend = gr.HTML(elem_id="legend")
                files = gr.HTML(elem_id="files")
            with gr.Column(scale=1, min_width=240):
                place = gr.HTML(elem_id="place")
                scores = gr.Label(label="Scores of the pixel", elem_id="scores")

        def said(function: Callable[..., dict[Any, Any]]) -> Callable[..., dict[Any, Any]]:
            """Show an error in the line for it, and leave the rest as it is."""

            @wraps(function)
            def safe(*values: Any) -> dict[Any, Any]:
                try:
                    return {status: "", **function(*values)}
                except Exception as error:
                    return {status: f'<p class="ovrs-error" role="alert">{html.escape(reply(error)[1])}</p>'}

            return safe

        def found(key: str | None) -> Session:
            if key is None:
                raise ConfigError("there is no image yet: drop one first.")
            return service.session(key)

        @said
        def open_image(path: str | None, band_text: str, before: str | None) -> dict[Any, Any]:
            if path is None:
                return {}
            upload = service.new_upload()
            shutil.move(path, upload)
            session = service.open(upload, Path(path).name, read_bands(band_text))
            service.forget(before)
            empty = {legend: "", files: "", place: describe(session.summary()), scores: None}
            return {key: session.key, view: session.picture, name: gr.Dropdown(choices=[], value=None), **empty}

        @said
        def clear(key_before: str | None) -> dict[Any, Any]:
            service.forget(key_before)
            return {key: None, view: None, legend: "", files: "", place: "", scores: None}

        def shown(session: Session, alpha: float) -> dict[Any, Any]:
            summary = session.summary()
            return {view: session.view(alpha), legend: table(summary), files: links(summary)}

        @said
        def ask_classes(key: str | None, text: str, least: float, alpha: float) -> dict[Any, Any]:
            session = found(key)
            session.ask([line.strip() for line in text.splitlines() if line.strip()], least or None)
            names = [entry["name"] for entry in session.summary()["classes"]]
            empty = {place: describe(session.summary()), scores: None}
            return {**shown(session, alpha), name: gr.Dropdown(choices=names, value=None), **empty}

        @said
        def recolour(key: str | None, of: str | None, value: str | None, alpha: float) -> dict[Any, Any]:
            if not of or not value:
                return {}
            session = found(key)
            session.recolour({of: as_hex(value)})
            return shown(session, alpha)

        @said
        def fade(key: str | None, alpha: float) -> dict[Any, Any]:
            return {view: found(key).view(alpha)} if key else {}

        @said
        def click(key: str | None, event: gr.SelectData) -> dict[Any, Any]:
            session = found(key)
            pixel = session.pixel_of_view(*event.index)
            return {place: describe(session.summary(), pixel), scores: pixel["scores"] or None}

        hidden = {"api_visibility": "private"}
        mapped = [status, view, legend, files, name, place, scores]
        file.upload(open_image, [file, bands, key], [key, *mapped], **hidden)
        file.clear(clear, [key], [key, *mapped], **hidden)
        ask.click(ask_classes, [key, words, threshold, opacity], mapped, **hidden)
        colour.change(recolour, [key, name, colour, opacity], mapped, trigger_mode="always_last", **hidden)
        opacity.change(fade, [key, opacity], [status, view], trigger_mode="always_last", **hidden)
        view.select(click, [key], [status, place, scores], **hidden)
    return page


def read_bands(text: str) -> tuple[int, ...]:
    """Return the numbers in a text such as "4, 3, 2".

    Raises:
        ConfigError: something else is in it.
    """
    parts = text.replace(",", " ").split()
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"bands must be numbers such as 4,3,2, got {text!r}.")
    return tuple(int(part) for part in parts)


def as_hex(colour: str) -> str:
    """Return "#rrggbb" of what a colour picker gives, which may be "rgba(255, 0, 0, 1)"."""
    if not colour.startswith("rgb"):
        return colour
    values = [round(float(part)) for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    return "#{:02x}{:02x}{:02x}".format(*values)


def table(summary: dict[str, Any]) -> str:
    """Return the legend with shares and areas as HTML."""
    unit = {"m2": "m²", "px": "pixels"}[summary["area_unit"]]
    rows = "".join(
        f'<tr><td><span class="ovrs-swatch" style="background:{entry["colour"]}"></span></td>'
        f'<td class="name">{html.escape(entry["name"])}</td><td>{entry["share"]:.1%}</td>'
        f"<td>{entry['area']:,.0f}</td></tr>"
        for entry in summary["classes"]
    )
    head = f'<tr><th></th><th class="name">class</th><th>share</th><th>{unit}</th></tr>'
    return f'<table class="ovrs-table">{head}{rows}</table>'


def links(summary: dict[str, Any]) -> str:
    """Return the downloads as HTML."""
    return '<p class="ovrs-files">Download: ' + " ".join(
        f'<a href="v1/maps/{summary["id"]}/files/{ending}" download>{ending}</a>' for ending in FILES
    )


def describe(summary: dict[str, Any], pixel: dict[str, Any] | None = None) -> str:
    """Return what is known of the image, or of one of its pixels, as HTML."""
    lines = [f"{summary['file']}: {summary['width']} x {summary['height']}, {summary['crs'] or 'no CRS'}"]
    lines += summary["notes"]
    if pixel:
        at = f"pixel {pixel['x']}, {pixel['y']}"
        if pixel["position"]:
            at += " at {:.2f}, {:.2f}".format(*pixel["position"])
        lines.append(f"{at}: {pixel['class'] or 'no data'}")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)
