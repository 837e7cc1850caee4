"""The command ``ovrs serve``: a page, a REST interface and tools for agents around one model.

:class:`Session` is one image on its way through any number of vocabularies, :class:`Service` holds all sessions and
lets one at a time use the model. Neither knows how it is reached: ``page`` (gradio), ``rest`` (FastAPI) and ``tools``
(MCP) are thin, need the extra ``[serve]``, and are imported by who starts the server.
"""

from ovrs.serve.limits import Limits
from ovrs.serve.service import Service
from ovrs.serve.session import Session

__all__ = ["Limits", "Service", "Session"]
