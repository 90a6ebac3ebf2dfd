"""A strict reader of serialized `tf.train.Example` messages, without TensorFlow.

An example is a map of names to features, and a feature is one list of bytes, of 32-bit floats or of 64-bit integers:

    Example   { Features features = 1 }
    Features  { map<string, Feature> feature = 1 }            (an entry: key = 1, value = 2)
    Feature   { oneof: BytesList = 1, FloatList = 2, Int64List = 3 }       (each: repeated value = 1)

Strict means: fields of another number or wire type, a name or a kind given twice, a feature without a kind, and
bytes past the end of any part are refused. Floats and integers may be packed or not, as protocol buffers allow.

Source: the protocol buffers wire format; TensorFlow, `example.proto` and `feature.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedavg.datasets.errors import MalformedFile

__all__ = ["Feature", "parse_example", "stack_examples"]

Feature = list[bytes] | NDArray[np.float32] | NDArray[np.int64]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


def parse_example(data: bytes) -> dict[str, Feature]:
    """Read one serialized example.

    Args:
        data: The message.

    Returns:
        By feature name: a list of bytes, a float32 array or an int64 array, each of one dimension.

    Raises:
        MalformedFile: not an example, or one with something this reader does not know.

    >>> parse_example(bytes.fromhex("0a0e 0a0c 0a0179 1207 0a05 0a03627965"))
    {'y': [b'bye']}
    """
    view = memoryview(data)
    features: dict[str, Feature] = {}
    for part in _messages(view, {1}, at_most_once=True).get(1, []):
        for entry in _messages(part, {1}).get(1, []):
            fields = _messages(entry, {1, 2}, at_most_once=True)
            if fields.keys() != {1, 2}:
                raise MalformedFile("an example has a feature without a name or without a value")
            name = _text(fields[1][0])
            if name in features:
                raise MalformedFile(f"an example has two features '{name}'")
            features[name] = _feature(name, fields[2][0])
    return features


def stack_examples(
    examples: Sequence[bytes], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, NDArray[Any] | list[bytes]]:
    """Read examples of one form and put each feature into one array.

    Args:
        examples: Serialized examples, at least one.
        shapes: The shape of every feature in one example, by name: () for a single value.

    Returns:
        By name, in the order of `shapes`: an array of shape (examples, *shape), or for bytes of shape () a list.

    Raises:
        MalformedFile: an example is malformed, or has other features, or another number of values.

    >>> stack_examples([bytes.fromhex("0a0e 0a0c 0a0179 1207 0a05 0a03627965")], {"y": ()})
    {'y': [b'bye']}
    """
    parsed = [parse_example(example) for example in examples]
    for features in parsed:
        if features.keys() != shapes.keys():
            raise MalformedFile(
                f"an example has the features {sorted(features)}; the ones asked for are {sorted(shapes)}"
            )
    return {
        name: _stack(name, [features[name] for features in parsed], shape) for name, shape in shapes.items()
    }


def _stack(name: str, column: list[Feature], shape: tuple[int, ...]) -> NDArray[Any] | list[bytes]:
    wanted = int(np.prod(shape))
    for values in column:
        if len(values) != wanted:
            raise MalformedFile(
                f"an example has {len(values)} values of '{name}'; its shape is said to be {shape}"
            )
        if _kind(values) != _kind(column[0]):
            raise MalformedFile(
                f"'{name}' is {_kind(column[0])} in one example and {_kind(values)} in another"
            )
    if isinstance(column[0], list):
        if shape != ():
            raise MalformedFile(f"'{name}' is bytes; give it the shape (), and decode it yourself")
        return [values[0] for values in column if isinstance(values, list)]
    return np.stack([np.asarray(values) for values in column]).reshape(len(column), *shape)


def _kind(values: Feature) -> str:
    return "bytes" if isinstance(values, list) else str(values.dtype)


def _feature(name: str, data: memoryview) -> Feature:
    kinds = _messages(data, _READERS.keys(), at_most_once=True)
    if len(kinds) != 1:
        raise MalformedFile(
            f"feature '{name}' of an example has {len(kinds)} kinds of values; one is expected"
        )
    ((kind, (values,)),) = kinds.items()
    return _READERS[kind](values)


def _bytes_list(data: memoryview) -> list[bytes]:
    return [bytes(value) for value in _messages(data, {1}).get(1, [])]


def _float_list(data: memoryview) -> NDArray[np.float32]:
    parts = [value for _, _, value in _fields(data, {1: (_BYTES, _FIXED32)})]
    if any(len(part) % 4 for part in parts):
        raise MalformedFile("an example has a list of floats that ends within a float")
    return np.frombuffer(b"".join(parts), "<f4").astype(np.float32)


def _int64_list(data: memoryview) -> NDArray[np.int64]:
    numbers: list[int] = []
    for _, _, value in _fields(data, {1: (_BYTES, _VARINT)}):
        end = 0
        while end < len(value):
            number, end = _varint(value, end)
            numbers.append(number)
    return np.array(numbers, np.uint64).astype(np.int64)


_READERS: Mapping[int, Callable[[memoryview], Feature]] = {1: _bytes_list, 2: _float_list, 3: _int64_list}


def _messages(data: memoryview, known: Any, *, at_most_once: bool = False) -> dict[int, list[memoryview]]:
    """The length-delimited fields of a message by number; any other field is refused."""
    found: dict[int, list[memoryview]] = {}
    for number, _, value in _fields(data, dict.fromkeys(known, (_BYTES,))):
        if at_most_once and number in found:
            raise MalformedFile(f"an example has field {number} twice where it may stand once")
        found.setdefault(number, []).append(value)
    return found


def _fields(data: memoryview, known: Mapping[int, tuple[int, ...]]) -> Iterator[tuple[int, int, memoryview]]:
    """Each field's number, wire type and bytes: contents of what has a length, the varint's own bytes of a varint."""
    position = 0
    while position < len(data):
        key, start = _varint(data, position)
        number, wire = key >> 3, key & 7
        if wire not in known.get(number, ()):
            raise MalformedFile(
                f"an example has field {number} of wire type {wire}, which is not known there"
            )
        if wire == _VARINT:
            _, position = _varint(data, start)
        elif wire == _FIXED32:
            position = start + 4
        else:
            length, start = _varint(data, start)
            position = start + length
        if position > len(data):
            raise MalformedFile("an example ends before one of its fields does")
        yield number, wire, data[start:position]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """The number that starts at `position`, and where it ends."""
    number = 0
    for index, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if number >> 64:
                break
            return number, position + index + 1
    raise MalformedFile("an example has a number that does not end, or of more than 64 bits")


def _text(data: memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedFile("an example has a feature whose name is no text") from error
