"""What all messages have in common: how they lie in a frame."""

from dataclasses import fields
from dataclasses import field as dataclass_field
from enum import IntEnum
from struct import Struct

#: length, version, kind, reserved, sequence.
HEADER = Struct("<HBBIQ")
#: The protocol's version that is spoken here.
VERSION = 1
#: Bytes of the longest frame.
FRAME_BYTES_MAX = 512


def field(form, *, at, default, code=None):
    """A field `at` bytes from the start of the body, as `struct` writes `form`."""
    layout = Struct("<" + form)
    return dataclass_field(default=default, metadata={"layout": layout, "at": at, "code": code})


class Message:
    """A message: its fields by name, and its bytes."""

    __slots__ = ()
    #: Number of the kind in the frame's header.
    KIND: int
    #: Bytes of the body.
    SIZE: int
    #: The section of PROTOCOL.md that it stands in.
    GROUP: str
    #: Every message by its kind.
    BY_KIND: "dict[int, type[Message]]" = {}

    def __init_subclass__(cls, kind=None, size=None, group=None, **kwargs):
        super().__init_subclass__(**kwargs)
        # `dataclass(slots=True)` makes the class a second time, without these words.
        if kind is not None:
            cls.KIND, cls.SIZE, cls.GROUP = kind, size, group
        Message.BY_KIND[cls.KIND] = cls

    def pack(self) -> bytes:
        """The body. `ValueError` names the field whose value does not fit."""
        body = bytearray(self.SIZE)
        for spec in fields(self):
            value = getattr(self, spec.name)
            layout, at = spec.metadata["layout"], spec.metadata["at"]
            if isinstance(value, str):
                value = value.encode()
            if isinstance(value, bytes) and len(value) > layout.size:
                raise ValueError(f"{spec.name} takes {layout.size} bytes, not {len(value)}")
            try:
                values = value if isinstance(value, (tuple, list)) else (value,)
                layout.pack_into(body, at, *values)
            except Exception as error:
                raise ValueError(f"{spec.name} cannot be {value!r}: {error}") from None
        return bytes(body)

    @classmethod
    def unpack(cls, body: bytes) -> "Message":
        """The message in a body of its length."""
        if len(body) != cls.SIZE:
            raise ValueError(f"{cls.__name__} has {cls.SIZE} bytes, not {len(body)}")
        values = {}
        for spec in fields(cls):
            value = spec.metadata["layout"].unpack_from(body, spec.metadata["at"])
            if len(value) == 1:
                value = value[0]
            if isinstance(spec.default, str):
                value = value.rstrip(b"\0").decode(errors="replace")
            elif spec.metadata["code"] is not None:
                value = known(spec.metadata["code"], value)
            values[spec.name] = value
        return cls(**values)


def known(code: "type[IntEnum]", number: int) -> int:
    """The code of this number, or the number itself where it is not known here."""
    try:
        return code(number)
    except ValueError:
        return number


def encode(sequence: int, message: Message) -> bytes:
    """The whole frame."""
    body = message.pack()
    return HEADER.pack(HEADER.size + len(body), VERSION, message.KIND, 0, sequence) + body
