"""Messages: the neutral model, and the stored form of any message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from session_history.errors import InvalidMessage, LimitExceeded
from session_history.records.values import check, copied, encode_checked

NEUTRAL = "session_history.message/1"
"""Format of a :class:`Message`, or of a dict that is one."""

NATIVE = "json/1"
"""Format of any other JSON object."""


class Role:
    """Names of the usual speakers. Any other text is a role, too."""

    USER: Final = "user"
    ASSISTANT: Final = "assistant"
    SYSTEM: Final = "system"
    TOOL: Final = "tool"


WORDS = {Role.USER, Role.SYSTEM, "developer"}
"""Roles whose messages come before the model, unless they hold the result of a tool."""

_ENVELOPE = 4096
"""Bytes of an entry that are left for what is not its messages: the turn's id, times, references."""


class _Model(BaseModel):
    """Base model: keeps unknown fields, and shows no content in a ``repr`` or in an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        return ()


class TextContent(_Model):
    type: Literal["text"] = "text"
    text: str


class ImageContent(_Model):
    type: Literal["image"] = "image"
    image_url: str


class DataContent(_Model):
    """Any JSON value."""

    type: Literal["data"] = "data"
    data: Any


class Content(_Model):
    """Content of any other kind; its fields are kept as they are."""

    type: str

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        yield "type", self.type


AnyContent = Annotated[TextContent | ImageContent | DataContent | Content, Field(union_mode="left_to_right")]


class Message(_Model):
    """One message in the neutral format. Plain text as content becomes one :class:`TextContent`."""

    id: str | None = None
    type: str = "message"
    role: str
    content: list[AnyContent] | None = None
    metadata: dict[str, Any] | None = None

    if TYPE_CHECKING:
        # pydantic does not tell a type checker of text as content, nor of extra fields.
        def __init__(
            self,
            *,
            role: str,
            content: str | Sequence[AnyContent] | None = None,
            id: str | None = None,  # noqa: A002 - the field's name
            type: str = "message",  # noqa: A002 - the field's name
            metadata: dict[str, Any] | None = None,
            **fields: Any,
        ) -> None: ...

    @field_validator("content", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value

    @property
    def text(self) -> str:
        """The text of all its :class:`TextContent`, joined."""
        return "".join(part.text for part in self.content or () if isinstance(part, TextContent))

    def __repr_args__(self) -> Iterable[tuple[str, Any]]:
        yield "role", self.role
        yield "type", self.type
        yield "parts", len(_parts(self))

    @classmethod
    def read(cls, value: dict[str, Any]) -> Message:
        """Return any stored JSON object as a message; an object of another shape becomes its :class:`DataContent`."""
        try:
            return cls.model_validate(value)
        except ValidationError:
            role = value.get("role")
            return cls(role=role if isinstance(role, str) else "unknown", content=[DataContent(data=value)])


_DEFAULTS = {name: field.default for name, field in Message.model_fields.items()}

MessageInput = Message | BaseModel | dict[str, Any] | Sequence[Message | BaseModel | dict[str, Any]]
"""What can be appended: a message, a dict, a message of an SDK that is a model of pydantic, or a sequence of these."""


_TEXT = {"role", "content"}

_SPEAKERS = {Role.USER, Role.ASSISTANT, Role.SYSTEM, "developer"}


UNREAD: Final = object()
"""The reading of a message that the view has not read."""


@dataclass(slots=True)
class StoredMessage:
    """A message as the log keeps it: verbatim, with the name of its format.

    :ivar format: the message format of a runtime, e.g. ``"agentscope.msg/2"``.
    :ivar value: the message. The cache shares it, so nobody may change it; :meth:`to_dict` returns a copy.
    :ivar reading: a place where the view keeps what it read in the message, for the next turn.
    :ivar is_text: the message has only a role, which is not a tool's, and text: a ``str``, or parts of the type
        ``text``; that of the assistant is not blank. Computed once, since each turn asks every message of its history.
    """

    format: str
    value: dict[str, Any] = field(repr=False)
    is_text: bool = field(init=False, repr=False, compare=False)
    reading: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.reading = UNREAD
        self.is_text = (
            self.value.keys() == _TEXT
            and self.role in _SPEAKERS
            and _is_text_content(self.value["content"])
            and (self.role != Role.ASSISTANT or not _has_blank_text(self.value["content"]))
        )

    @classmethod
    def checked(cls, format: str, value: dict[str, Any], path: str = "message") -> StoredMessage:  # noqa: A002 - the field's name
        """Return a copy of a JSON object as a message.

        :param path: the name of the message in an error.
        :raises NotStorable: it would not come back equal.
        """
        if type(value) is not dict:
            raise InvalidMessage(path, f"must be a dict, not {type(value).__name__}")
        check(value, path)
        return cls(format, copied(value))

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of the value, which the caller may change."""
        value: dict[str, Any] = copied(self.value)
        return value

    @property
    def role(self) -> str | None:
        role = self.value.get("role")
        return role if isinstance(role, str) else None


def room_of(limit: int) -> int:
    """Return how many bytes of messages fit into an entry of ``limit`` bytes."""
    return limit - min(_ENVELOPE, limit // 4)


def size_of(message: StoredMessage) -> int:
    """Return about the bytes that a message takes in an entry."""
    return len(encode_checked(message.value)) + len(message.format) + 8


def check_fits(messages: Iterable[StoredMessage], limit: int) -> None:
    """Check that an input fits into an entry of ``limit`` bytes. :raises LimitExceeded: it does not."""
    size = sum(map(size_of, messages))
    if size > room_of(limit):
        raise LimitExceeded("bytes of the input", size, room_of(limit))


def freeze(messages: MessageInput, *, native: bool) -> list[StoredMessage]:
    """Return checked copies of messages, as they would come back from a store.

    :param native: take any JSON object; else a dict must be a :class:`Message`.
    :raises InvalidMessage: something is no message.
    :raises NotStorable: something would not come back equal.
    """
    messages = dumped_model(messages)
    if isinstance(messages, (Message, dict)):
        return [_freeze(messages, "message", native=native)]
    if isinstance(messages, (str, bytes)) or not isinstance(messages, Sequence):
        raise InvalidMessage("message", f"must be a Message, a dict or a list of them, not {_kind(messages)}")
    return [_freeze(message, f"messages[{index}]", native=native) for index, message in enumerate(messages)]


def thaw(messages: Iterable[StoredMessage], *, native: bool) -> list[Any]:
    """Return copies of stored messages: the values as they are, or as :class:`Message`."""
    if native:
        return [
            message.value.copy() if message.is_text and type(message.value["content"]) is str else copied(message.value)
            for message in messages
        ]
    return list(map(Message.read, copied([message.value for message in messages])))


def _is_text_content(content: object) -> bool:
    if type(content) is str:
        return True
    return type(content) is list and all([type(part) is dict and part.get("type") == "text" for part in content])  # noqa: C419 - a list is faster


def _has_blank_text(content: str | list[dict[str, Any]]) -> bool:
    """Tell whether text is missing, or white space: many models' APIs refuse that."""
    if type(content) is str:
        return not content or content.isspace()
    texts = [part.get("text") for part in content if type(part) is dict]
    return not texts or any([type(text) is str and (not text or text.isspace()) for text in texts])  # noqa: C419 - a list is faster


def text_message(role: str, text: str, *, native: bool) -> Message | dict[str, Any]:
    """Return plain text as a message; a native one has the shape that most model APIs share."""
    if native:
        return {"role": role, "content": text}
    return Message(role=role, content=[TextContent(text=text)])


def dumped_model(value: Any) -> Any:
    """Return a message of an SDK, a model of pydantic, as the dict that its API sent; any other value as it is."""
    if isinstance(value, Message) or not callable(getattr(type(value), "model_dump", None)):
        return value
    for mode in ("json", "python"):  # not every model is JSON, e.g. one with bytes
        try:
            sent = value.model_dump(mode=mode, by_alias=True, exclude_unset=True, warnings=False)
            return _with_defaults(sent, value.model_dump(mode=mode, by_alias=True, warnings=False))
        except Exception:  # noqa: S112 - of the model's own serializers
            continue
    return value


def _with_defaults(sent: Any, whole: Any) -> Any:
    """Return the fields of a model that were set, and those that have a value by default."""
    if isinstance(sent, dict) and isinstance(whole, dict):
        kept = {name: _with_defaults(item, whole.get(name, item)) for name, item in sent.items()}
        return kept | {name: item for name, item in whole.items() if name not in sent and item not in (None, [], {})}
    if type(sent) is list and type(whole) is list and len(sent) == len(whole):
        return [_with_defaults(*pair) for pair in zip(sent, whole, strict=True)]
    return sent


def is_message(value: dict[str, Any]) -> bool:
    """Tell whether a dict is a :class:`Message`."""
    try:
        Message.model_validate(value)
    except ValidationError:
        return False
    return True


def raw_fields(message: Message) -> dict[str, Any]:
    """Return the fields of a message as they were set, parts of its content as dicts."""
    fields = _without_unset(message, dict(message))
    if isinstance(fields.get("content"), list):
        fields["content"] = [dict(part) if isinstance(part, _Model) else part for part in fields["content"]]
    return fields


def _freeze(message: object, path: str, *, native: bool) -> StoredMessage:
    message = dumped_model(message)
    if isinstance(message, Message):
        value = _dump(message, path)
        kept = StoredMessage.checked(NEUTRAL, value, path)
        _check_message(value, path)
        return kept
    if not isinstance(message, dict):
        raise InvalidMessage(path, f"must be a Message or a dict, not {_kind(message)}")
    kept = StoredMessage.checked(NATIVE if native else NEUTRAL, message, path)
    if not native:
        _check_message(message, path)
    return kept


def _dump(message: Message, path: str) -> dict[str, Any]:
    """Return a message as a dict: all that was set, and all that a subclass adds."""
    for name, free in _free_values(message):
        check(free, f"{path}.{name}")
    return _without_unset(message, message.model_dump(by_alias=True, serialize_as_any=True, warnings=False))


def _without_unset(message: Message, value: dict[str, Any]) -> dict[str, Any]:
    unset = {"id", "type", "content", "metadata"} - message.model_fields_set
    return {name: item for name, item in value.items() if name not in unset or item != _DEFAULTS[name]}


def _parts(message: Message) -> list[Any]:
    """Return the content; nothing if it was replaced by something else after the message was made."""
    return message.content if isinstance(message.content, list) else []


def _free_values(message: Message) -> Iterable[tuple[str, object]]:
    """Yield the values that pydantic does not check, and would turn into dicts and lists in any case."""
    yield from (message.model_extra or {}).items()
    yield "metadata", message.metadata
    for index, part in enumerate(_parts(message)):
        if isinstance(part, _Model):
            yield from ((f"content[{index}].{name}", value) for name, value in (part.model_extra or {}).items())
        if isinstance(part, DataContent):
            yield f"content[{index}].data", part.data


def _check_message(value: dict[str, Any], path: str) -> None:
    try:
        Message.model_validate(value)
    except ValidationError as error:
        flaw = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if flaw["loc"] == ("content",):
            raise InvalidMessage(f"{path}.content", "must be text or a list of parts") from None
        steps = "".join(_step(step) for step in flaw["loc"])
        raise InvalidMessage(path + steps, f"does not fit a message: {flaw['msg']}") from None


def _step(step: int | str) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    # pydantic also names the kind of content that it tried last
    return "" if step.endswith("Content") else f".{step}"


def _kind(value: object) -> str:
    return type(value).__name__
