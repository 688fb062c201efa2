"""What a key of a model holds, by its annotation: its type, whether a list, whether tables."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def strip_annotation(annotation: Any) -> Any:
    """The type below Annotated and `| None`."""
    origin = get_origin(annotation)
    if origin is Annotated or origin is types.UnionType or origin is Union:
        return strip_annotation(get_args(annotation)[0])
    return annotation


def is_list(annotation: Any) -> bool:
    """Whether the key holds a list."""
    return get_origin(strip_annotation(annotation)) is tuple


def table_of(annotation: Any) -> type[BaseModel] | None:
    """The keys of a list of tables, None for any other key."""
    kind = strip_annotation(annotation)
    item = strip_annotation(get_args(kind)[0]) if get_origin(kind) is tuple else None
    return item if isinstance(item, type) and issubclass(item, BaseModel) else None
