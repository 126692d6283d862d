"""How a fault of the exporter's own is logged: by its place, since its text may quote what was sent."""

import traceback


def where(error: BaseException) -> str:
    """The error's type and the lines it came through, without its text."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at " + " < ".join(f"{f.filename}:{f.lineno}" for f in reversed(frames))
