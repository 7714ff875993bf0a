"""SQL lives in files beside the Python that runs it; each is read once, when its module is imported."""

from pathlib import Path


def load_sql(python_file: str, name: str) -> str:
    """Reads `name` from the folder of `python_file`.

    Args:
        python_file: the caller's `__file__`.
        name: a path relative to its folder, such as `sql/claim.sql`.

    Returns:
        The statement as written, comments included, so that it can be told in pg_stat_activity.

    Raises:
        FileNotFoundError: the file is not part of the installation.
    """
    return (Path(python_file).parent / name).read_text(encoding="utf-8")
