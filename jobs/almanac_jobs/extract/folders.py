"""Which folder of a data set a row belongs to: its month, its year, the bucket of its entity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from almanac.api import JobError, Partition, PartitionBy, Reason
from almanac_jobs.buckets import bucket_of
from almanac_jobs.extract.columns import names_in
from almanac_jobs.extract.relation import Relation

NOTHING = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, and everybody after it, calls the folder of rows that have no value."""
_NAMES = {
    PartitionBy.NONE: (),
    PartitionBy.YEAR: ("year",),
    PartitionBy.MONTH: ("year", "month"),
    PartitionBy.ENTITY: ("bucket",),
}
_NULL = -(1 << 40)


def check(partition: Partition, relation: Relation) -> None:
    """Refuse a partition that the columns do not allow.

    Raises:
        JobError: DataError.
    """
    if partition.column is None:
        return
    names_in(relation.columns, (partition.column,), "spec.partition.column")
    kind = relation.columns.schema.field(partition.column).type
    timed = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    named = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_date(kind)
    if partition.by in (PartitionBy.YEAR, PartitionBy.MONTH) and not timed:
        wanted = "year and month are of dates and timestamps"
        raise JobError(Reason.DATA_ERROR, f"spec.partition.column: `{partition.column}` is {kind}: {wanted}")
    if partition.by is PartitionBy.ENTITY and not named:
        wanted = "entities are texts, integers or dates"
        raise JobError(Reason.DATA_ERROR, f"spec.partition.column: `{partition.column}` is {kind}: {wanted}")
    for name in _NAMES[partition.by]:
        if name in relation.columns.schema.names:
            raise JobError(
                Reason.DATA_ERROR,
                f"spec.partition.by: folders would be named {name}=..., and the table has a column `{name}`: leave it "
                "out of spec.source.columns, rename it in spec.source.query, or partition otherwise",
            )


@dataclass(frozen=True, slots=True)
class Folders:
    """The folders of a data set."""

    partition: Partition

    def split(self, batch: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The rows of a batch by folder, in their order."""
        column = self.partition.column
        if self.partition.by is PartitionBy.NONE or column is None:
            yield "", batch
            return
        codes = self._codes(batch.column(batch.schema.get_field_index(column)))
        different = np.unique(codes)
        if len(different) == 1:
            yield self._name(int(different[0])), batch
            return
        order = np.argsort(codes, kind="stable")
        ends = np.searchsorted(codes[order], different, side="right")
        start = 0
        for code, end in zip(different.tolist(), ends.tolist(), strict=True):
            yield self._name(code), batch.take(pa.array(order[start:end]))
            start = end

    def _codes(self, values: pa.Array) -> NDArray[np.int64]:
        """A number for each row's folder."""
        if self.partition.by is PartitionBy.ENTITY:
            encoded = values.dictionary_encode()
            of_name = bucket_of(encoded.dictionary, self.partition.buckets).astype(np.int64)
            indices = pc.fill_null(encoded.indices, len(of_name)).to_numpy(zero_copy_only=False)
            return np.asarray(np.append(of_name, _NULL)[indices])
        code = pc.year(values)
        if self.partition.by is PartitionBy.MONTH:
            code = pc.add(pc.multiply(code, 12), pc.subtract(pc.month(values), 1))
        return np.asarray(pc.fill_null(code, _NULL).to_numpy(zero_copy_only=False), np.int64)

    def _name(self, code: int) -> str:
        names = _NAMES[self.partition.by]
        if code == _NULL:
            return "/".join(f"{name}={NOTHING}" for name in names)
        if self.partition.by is PartitionBy.ENTITY:
            return f"bucket={code:04d}"
        if self.partition.by is PartitionBy.YEAR:
            return f"year={code:04d}"
        return f"year={code // 12:04d}/month={code % 12 + 1:02d}"
