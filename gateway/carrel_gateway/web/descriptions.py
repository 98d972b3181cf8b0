"""Descriptions of fields in the OpenAPI document: the docstrings below them, read when the document is asked for.

Pydantic can read them itself, but does so when each model is defined: a tenth of every start of the gateway.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from carrel_gateway.web.fields import ReplyBody, RequestBody


def describe(schemas: dict[str, Any]) -> None:
    """Add the descriptions of the gateway's models to the schemas of a document, in place."""
    models: dict[str, type[BaseModel]] = {}
    for model in (*_below(RequestBody), *_below(ReplyBody)):
        models[model.__name__] = models[f"{model.__module__}.{model.__name__}".replace(".", "__")] = model
    for name, schema in schemas.items():
        model = models.get(name.removesuffix("-Input").removesuffix("-Output"))
        for field, text in descriptions(model).items() if model else ():
            if field in schema.get("properties", {}):
                schema["properties"][field].setdefault("description", text)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return field → docstring, of a model and those that it comes from."""
    found: dict[str, str] = {}
    for one in reversed(model.__mro__):
        if issubclass(one, (RequestBody, ReplyBody)):
            found |= _of_module(one.__module__).get(one.__qualname__, {})
    return found


def _below(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _below(model)


@cache
def _of_module(name: str) -> dict[str, dict[str, str]]:
    """Return class → field → docstring, of the classes at the top of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {one.name: _of_class(one) for one in tree.body if isinstance(one, ast.ClassDef)}


def _of_class(tree: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for before, line in zip(tree.body, tree.body[1:], strict=False):
        match before, line:
            case ast.AnnAssign(target=ast.Name(id=field)), ast.Expr(value=ast.Constant(value=str(text))):
                found[field] = inspect.cleandoc(text)
            case _:
                pass
    return found
