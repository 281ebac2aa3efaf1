from collector.model import Number
from collector.store.reading.fields import Bad
from collector.store.reading.plan import Points

def read_fields(text: bytes, times: tuple[int, ...], low: int, high: int) -> tuple[Points[Number], Bad]: ...
