"""A change to a live catalogue, as something that can be written down and done again.

In: what `LiveCatalogue` decided, codes included. Out: bytes, and the same change from them. Doing all changes of a catalogue
again, in order, gives the same versions with the same hashes; no text is encoded for it.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_HEADER = b"genrec"


@dataclass(frozen=True, eq=False)
class Change:
    """about: for people. gone: ids that can no longer be found (those replaced included). items: [n] new rows; codes: int32
    [n, L]; vectors: float32 [n, D] where the catalogue keeps them. rollback: hash of the version whose content comes back; then
    the rest is empty.
    """

    about: str
    gone: tuple[str, ...] = ()
    items: pa.Table | None = None
    codes: np.ndarray | None = None
    vectors: np.ndarray | None = None
    rollback: str | None = None

    @property
    def spelled(self) -> str:
        """All that makes the difference, as one text: what version hashes are made of."""
        said: dict = {"rollback": self.rollback} if self.rollback is not None else {"gone": self.gone}
        if self.items is not None and self.codes is not None:
            said |= {"items": self.items.to_pylist(), "codes": self.codes.tolist()}
        return json.dumps(said, sort_keys=True, default=str)

    def encode(self) -> bytes:
        """An Arrow stream: the items as its table, the rest in its metadata."""
        codes = None if self.codes is None else self.codes.tolist()
        said: dict = {"about": self.about, "gone": self.gone, "codes": codes, "rollback": self.rollback}
        if self.vectors is not None:
            said["vectors"] = base64.b64encode(self.vectors.astype("<f4").tobytes()).decode()
        table = pa.table({}) if self.items is None else self.items
        table = table.replace_schema_metadata({_HEADER: json.dumps(said)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes()

    @classmethod
    def decode(cls, data: bytes) -> "Change":
        table = pa.ipc.open_stream(data).read_all()
        said = json.loads(table.schema.metadata[_HEADER])
        if said["codes"] is None:
            return cls(said["about"], tuple(said["gone"]), rollback=said["rollback"])
        items = table.replace_schema_metadata(None)
        codes = np.array(said["codes"], np.int32)
        written = base64.b64decode(said["vectors"]) if "vectors" in said else None
        vectors = None if written is None else np.frombuffer(written, "<f4").reshape(len(codes), -1)
        return cls(said["about"], tuple(said["gone"]), items, codes, vectors)
