"""Jobs that read what an ExtractJob writes, on a laptop: its manifest is looked for beside that of the job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from almanac.api import ExtractJob, JobError, Reason
from almanac.documents import STDIN, SUFFIXES, Document, load_documents


def consumers(documents: Sequence[Document]) -> list[Document]:
    """The jobs of a file but for the ExtractJobs that others of it read."""
    read = {_extract_of(document.value) for document in documents}
    return [one for one in documents if one.kind != "ExtractJob" or one.name not in read]


def _extract_of(value: Any) -> str | None:
    """The name of the ExtractJob that a document, of which nothing is known yet, reads."""
    for step in ("spec", "source", "extract", "name"):
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def find(name: str, namespace: str, path: str) -> ExtractJob:
    """The ExtractJob of a name in the file `path`, or in one beside it.

    Raises:
        JobError: SourceNotFound if there is none, and with every problem of the one that there is.
    """
    files = [path]
    if path != STDIN:
        beside = Path(path).parent if Path(path).is_file() else Path(path)
        files += sorted(str(one) for one in beside.glob("*") if one.suffix in SUFFIXES and str(one) != path)
    for file in files:
        for document in load_documents([file]):
            if document.kind == "ExtractJob" and document.name == name:
                job = document.parse()
                if isinstance(job, ExtractJob) and job.metadata.namespace == namespace:
                    return job
    where = "standard input holds" if path == STDIN else f"{path} and the files beside it hold"
    raise JobError(
        Reason.SOURCE_NOT_FOUND,
        f"spec.source.extract.name: {where} no ExtractJob `{name}`: put its manifest there, or write the folder of a "
        "run into spec.source.extract.uri",
    )
