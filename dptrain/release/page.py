"""The two pages for a browser: one file each, without anything from elsewhere.

``page.html`` is the start page and ``docs.html`` shows ``/openapi.json``. A policy that names their own style and script by
their hashes forbids everything else, so that a text that found its way into a page could not run, load or send anything.
"""

import base64
import functools
import hashlib
import re
from importlib import resources

from fastapi import Response

START, DOCS = "page.html", "docs.html"
ABOUT = (
    "Answers of one model behind a guard. A guard shows less, which is no privacy guarantee; what is guaranteed stands in "
    "/v1/card. Whatever is not accepted gets a JSON object with error and accepted."
)
_INLINE = re.compile(r"<(style|script)>(.*?)</\1>", re.DOTALL)


@functools.lru_cache(maxsize=2)
def read(name: str) -> tuple[str, str]:
    """A page and the policy that a browser is to hold it to."""
    text = resources.files(__package__ or "dptrain.release").joinpath(name).read_text(encoding="utf-8")
    hashes = {kind: _hash(content) for kind, content in _INLINE.findall(text)}
    policy = (
        f"default-src 'none'; style-src {hashes['style']}; script-src {hashes['script']}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def response(name: str) -> Response:
    text, policy = read(name)
    return Response(text, media_type="text/html; charset=utf-8", headers={"content-security-policy": policy})


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
