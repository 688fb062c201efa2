"""What a key's annotation comes to: a text, a truth, a number, a choice or a list."""

from __future__ import annotations

import types
from typing import Annotated, Any, Union, get_args, get_origin


def strip_annotation(annotation: Any) -> Any:
    """The type below Annotated and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated or origin is types.UnionType or origin is Union:
        return strip_annotation(get_args(annotation)[0])
    return annotation


def is_list(annotation: Any) -> bool:
    """Whether the key holds a list."""
    return get_origin(strip_annotation(annotation)) is tuple
