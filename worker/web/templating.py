"""The templates of all pages: escaped everywhere, a name that is missing is an error."""

from __future__ import annotations

from pathlib import Path

from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent / "templates"

templates = Jinja2Templates(
    env=Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
)
