"""The error of the data room, and the hints that its messages end with."""

from ovrs.errors import DataError, nearest, shortened

__all__ = ["DataError", "nearest", "shortened"]
