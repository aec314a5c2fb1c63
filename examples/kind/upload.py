"""Bring a folder into a bucket: python examples/kind/upload.py data/cdnow s3://lake/cdnow.

Server and credentials come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID ...). The bucket is made if it is
not there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import boto3


def upload(folder: Path, uri: str) -> int:
    """Put each file of a folder below `uri`; gives how many there were."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket=bucket)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        s3.upload_file(str(file), bucket, f"{prefix}/{file.relative_to(folder).as_posix()}")
    return len(files)


if __name__ == "__main__":
    count = upload(Path(sys.argv[1]), sys.argv[2])
    print(f"{count} files are in {sys.argv[2]}")
