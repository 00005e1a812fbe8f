"""Signing payloads, verifying them before anything is opened, and choosing how values travel.

A payload is: format version (1 byte), codec (1 byte), signature (32 bytes), body. The
signature is BLAKE2b with the project's key (RFC 7693, section 2.9: a MAC without HMAC's two
rounds, and without giving up the GIL as OpenSSL's digests do, which costs a thread switch for
each payload). It covers version, codec, the *context* (what the payload is for, and of which
task) and the body, so that nobody without the key can write a payload, and nobody at all can
move one to another task. Opening a pickle is running code: that is why.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from hmac import compare_digest
from typing import Any, NoReturn

import msgspec

from omniq_nb.codec import frames, plain
from omniq_nb.codec.bundles import BIG, Bundles, Fetch, no_bundles
from omniq_nb.codec.functions import bundles_of_function, pack_function, unpack_function
from omniq_nb.codec.pickles import dump, load
from omniq_nb.errors import NotSerializable, PayloadError, PayloadRefused

_VERSION = 1
_MSGPACK, _JSON, _PICKLE, _CALL, _PARTS, _BYTES, _PARQUET = 1, 2, 3, 4, 5, 6, 7
_HEADS = [bytes((_VERSION, codec)) for codec in range(_PARQUET + 1)]
_BUNDLE = "bundle"
_NAME = 32
_SIGNATURE = 32
_HEAD = 2 + _SIGNATURE

_call_encoder = msgspec.msgpack.Encoder()
_call_decoder = msgspec.msgpack.Decoder(tuple[bytes, int, bytes])

_SMALL = frozenset({type(None), bool, int, float})

_Part = tuple[int, bytes] | str
"""An argument: its codec and its body, or the name of the bundle that it is."""

_parts_decoder = msgspec.msgpack.Decoder(tuple[list[_Part], dict[str, _Part]])


class Codec:
    """Turns values, exceptions and calls into signed payloads, and back.

    Parameters
    ----------
    key : bytes
        The project's key, at most 64 bytes.
    strict : bool
        Refuse pickles and functions that are not allowed, before opening them.
    allow : sequence of str
        What strict mode lets run: ``module:name``, ``module:*`` or ``package.*``.
    """

    def __init__(self, key: bytes, *, strict: bool = False, allow: Sequence[str] = ()) -> None:
        self.key = key
        self.strict = strict
        self.allow = tuple(allow)
        self._keyed = blake2b(digest_size=_SIGNATURE, key=key)

    def __reduce__(self) -> NoReturn:
        # A function that refers to it would carry the key into the store.
        raise NotSerializable("a Codec holds the project's key and stays in its process")

    # ---------------------------------------------------------------- calls

    def pack_function(
        self, function: Callable[..., object], bundles: Bundles | None = None, calls: int = 1
    ) -> bytes:
        """Pack a function once, for any number of calls.

        Parameters
        ----------
        function : callable
            Any.
        bundles : Bundles, optional
            Is given what is large; unless given, the packed function holds all.
        calls : int
            For how many calls: what takes much room in all of them together is large.

        Raises
        ------
        NotSerializable
            It refers to something that cannot travel.
        PayloadRefused
            Strict mode forbids it.
        """
        share = None if bundles is None else partial(self._share, bundles, _BYTES)
        return pack_function(
            function, strict=self.strict, allow=self.allow, share=share, calls=calls
        )

    def share_constants(self, kwargs: Mapping[str, object], bundles: Bundles) -> dict[str, str]:
        """Make bundles of large keyword arguments that many calls have: each object once.

        Returns
        -------
        dict of str to str
            Keyword to the bundle's name, for those that are large.

        Raises
        ------
        NotSerializable
            An argument cannot travel; the message says which.
        """
        names = {}
        for key, value in kwargs.items():
            if type(value) in _SMALL or (type(value) is str and len(value) < BIG // 4):
                continue
            if id(value) not in bundles.constants:
                part = self._part(value, f"argument {key!r}", bundles)
                bundles.constants[id(value)] = value, part if isinstance(part, str) else None
            if (name := bundles.constants[id(value)][1]) is not None:
                names[key] = name
        return names

    def encode_call(
        self,
        packed: bytes,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        *,
        context: str,
        bundles: Bundles | None = None,
        constants: Mapping[str, str] | None = None,
    ) -> bytes:
        """A call of a packed function.

        Parameters
        ----------
        packed : bytes
            The function, as `pack_function` gave it.
        args, kwargs
            The arguments.
        context : str
            What the call is for.
        bundles : Bundles, optional
            Is given what is large; unless given, the call holds all but what the function left.
        constants : mapping, optional
            Keyword arguments that are bundles already: what `share_constants` gave.

        Raises
        ------
        NotSerializable
            An argument cannot travel; the message says which.
        """
        codec, body = _MSGPACK, None if constants else plain.pack_atoms(args, kwargs)
        if body is None and not constants:
            parts = _named_arguments(args, kwargs)
            codec, body = self._body([list(args), kwargs], "msgpack", "the arguments", parts)
        if body is None or (bundles is not None and len(body) > BIG):
            assert bundles is not None
            codec, body = _PARTS, self._parts(args, kwargs, bundles, constants or {})
        return self._signed(_CALL, _call_encoder.encode((packed, codec, body)), context)

    def bundles_of(self, call: bytes) -> tuple[str, ...]:
        """The names of the bundles that a call of our own refers to."""
        packed, codec, body = _call_decoder.decode(memoryview(call)[_HEAD:])
        names = list(bundles_of_function(packed))
        if codec == _PARTS:
            args, kwargs = _parts_decoder.decode(body)
            names += [part for part in (*args, *kwargs.values()) if isinstance(part, str)]
        return tuple(dict.fromkeys(names))

    def decode_call(
        self, payload: bytes, *, context: str, fetch: Fetch = no_bundles
    ) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        """Open a call.

        Parameters
        ----------
        payload : bytes
            What `encode_call` gave.
        context : str
            What it gave it for.
        fetch : callable, optional
            Gives bundles.

        Raises
        ------
        PayloadRefused
            It is not signed with our key for this context, or strict mode forbids it.
        PayloadError
            Its function or arguments cannot be rebuilt here.
        """
        codec, body = self._verified(payload, context)
        if codec != _CALL:
            raise PayloadRefused(f"the payload of {context!r} is no call")
        packed, codec, arguments = _call_decoder.decode(body)
        function = unpack_function(
            packed,
            strict=self.strict,
            allow=self.allow,
            fetch=lambda name: self._bundle(name, fetch)[1],
        )
        if codec != _PARTS:
            args, kwargs = self._opened(codec, arguments, context)
            return function, tuple(args), kwargs

        def opened(part: _Part) -> object:
            codec, body = self._bundle(part, fetch) if isinstance(part, str) else part
            return self._opened(codec, body, context)

        parts, named = _parts_decoder.decode(arguments)
        return (
            function,
            tuple(map(opened, parts)),
            {key: opened(part) for key, part in named.items()},
        )

    # ---------------------------------------------------------------- values

    def encode(self, value: object, *, context: str, prefer: str = "msgpack") -> bytes:
        """A value.

        Parameters
        ----------
        value : object
            Anything that can travel.
        context : str
            What it is for; `decode` must name the same.
        prefer : {"msgpack", "json", "pickle"}
            How plain data is packed, where that is exact.

        Raises
        ------
        NotSerializable
            It cannot travel.
        """
        if prefer != "pickle" and (file := frames.pack(value)) is not None:
            return self._signed(_PARQUET, file, context)
        codec, body = self._body(value, prefer, "the value")
        return self._signed(codec, body, context)

    def decode(self, payload: bytes, *, context: str) -> object:
        """Open a value.

        Raises
        ------
        PayloadRefused
            It is not signed with our key for this context, or strict mode forbids it.
        PayloadError
            It cannot be rebuilt here.
        """
        codec, body = self._verified(payload, context)
        return self._opened(codec, body, context)

    def open_table(self, payload: bytes, *, context: str) -> memoryview | None:
        """Give the Parquet file in the payload of a data frame. None: it holds something else.

        Raises
        ------
        PayloadRefused
            It is not signed with our key for this context.
        """
        codec, body = self._verified(payload, context)
        return body if codec == _PARQUET else None

    def encode_exception(self, error: BaseException, *, context: str) -> bytes:
        """An exception, if it survives the journey; otherwise nothing."""
        if self.strict:
            return b""
        try:
            body = dump(error, "the exception")
            # Exceptions whose constructor wants other arguments pickle well and open badly.
            rebuilt = load(body)
            if type(rebuilt) is not type(error) or str(rebuilt) != str(error):
                return b""
        except Exception:  # its own code, which may raise anything; text and traceback must do
            return b""
        return self._signed(_PICKLE, body, context)

    def rebind(self, payload: bytes, *, old: str, new: str) -> bytes:
        """Sign a payload for another context. Its signature for the old one must be right."""
        codec, body = self._verified(payload, old)
        return self._signed(codec, bytes(body), new)

    # ---------------------------------------------------------------- bundles

    def _share(self, bundles: Bundles, codec: int, body: bytes | memoryview) -> str:
        payload = self._signed(codec, body, _BUNDLE)
        name = payload[2:_HEAD].hex()[:_NAME]
        bundles.payloads.setdefault(name, payload)
        return name

    def _bundle(self, name: str, fetch: Fetch) -> tuple[int, memoryview]:
        payload = fetch(name)
        codec, body = self._verified(payload, _BUNDLE)
        if payload[2:_HEAD].hex()[:_NAME] != name:
            raise PayloadRefused(f"what is stored as the bundle {name} is another one")
        return codec, body

    def _parts(
        self,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        bundles: Bundles,
        constants: Mapping[str, str],
    ) -> bytes:
        positional = [
            self._part(value, f"argument {number}", bundles) for number, value in enumerate(args, 1)
        ]
        named = {
            key: constants.get(key) or self._part(value, f"argument {key!r}", bundles)
            for key, value in kwargs.items()
        }
        return _call_encoder.encode((positional, named))

    def _part(self, value: object, what: str, bundles: Bundles) -> _Part:
        codec, body = self._body(value, "msgpack", what)
        return (codec, body) if len(body) <= BIG else self._share(bundles, codec, body)

    # ---------------------------------------------------------------- inside

    def _body(
        self, value: object, prefer: str, what: str, parts: Iterable[tuple[str, object]] = ()
    ) -> tuple[int, bytes]:
        if prefer == "json" and (text := _exact_json(value)) is not None:
            return _JSON, text
        if prefer != "pickle" or self.strict:
            try:
                return _MSGPACK, plain.pack(value)
            except plain.NotPlain as reason:
                if self.strict:
                    raise NotSerializable(
                        f"strict mode lets plain data travel only, and {what} would be "
                        f"pickled: {reason}"
                    ) from None
        return _PICKLE, dump(value, what, parts)

    def _opened(self, codec: int, body: bytes | memoryview, context: str) -> Any:
        if codec == _PICKLE:
            if self.strict:
                raise PayloadRefused(f"strict mode does not open the pickle of {context!r}")
            return load(bytes(body))
        try:
            if codec == _MSGPACK:
                return plain.unpack(body)
            if codec == _JSON:
                return msgspec.json.decode(body)
            if codec == _PARQUET:
                return frames.unpack(body)
        except (ValueError, LookupError, ImportError) as error:  # a time zone unknown here, say
            raise PayloadError(f"the payload of {context!r} cannot be opened: {error}") from error
        raise PayloadError(f"the payload of {context!r} was packed by a newer omniq_nb")

    def _signed(self, codec: int, body: bytes | memoryview, context: str) -> bytes:
        head = _HEADS[codec]
        return b"".join((head, self._signature(head, body, context), body))

    def _verified(self, payload: bytes, context: str) -> tuple[int, memoryview]:
        view = memoryview(payload)
        head, signature, body = view[:2], view[2:_HEAD], view[_HEAD:]
        if len(signature) < _SIGNATURE or not compare_digest(
            signature, self._signature(head, body, context)
        ):
            raise PayloadRefused(
                f"the payload of {context!r} is not signed with this project's key, so it was "
                f"not opened. Machines that share work need the same OMNIQ_SECRET_KEY"
            )
        if head[0] > _VERSION:
            raise PayloadError(f"the payload of {context!r} was packed by a newer omniq_nb")
        return head[1], body

    def _signature(self, head: bytes | memoryview, body: bytes | memoryview, context: str) -> bytes:
        words = context.encode("utf-8", "surrogatepass")
        mac = self._keyed.copy()
        mac.update(b"".join((head, len(words).to_bytes(4, "big"), words)))
        mac.update(body)
        return mac.digest()


def split_table(payload: bytes) -> tuple[bytes, bytes] | None:
    """Cut the payload of a data frame into what comes before, and its Parquet file.

    None: it holds something else. The signature is not looked at: whoever joins the two again
    will do that.
    """
    if payload[1:2] != bytes((_PARQUET,)) or not payload.endswith(frames.MARK):
        return None
    return payload[:_HEAD], payload[_HEAD:]


def _named_arguments(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> Iterator[tuple[str, object]]:
    for number, part in enumerate(args, 1):
        yield f"argument {number}", part
    for name, part in kwargs.items():
        yield f"argument {name!r}", part


def _exact_json(value: object) -> bytes | None:
    try:
        return msgspec.json.encode(value) if _is_json(value) else None
    except (ValueError, RecursionError):  # a lone surrogate, a list that holds itself
        return None


def _is_json(value: object) -> bool:
    """Whether JSON gives back exactly this."""
    kind = type(value)
    if kind is int:
        return -(2**63) <= value < 2**63  # type: ignore[operator]
    if kind is float:
        return math.isfinite(value)  # type: ignore[arg-type]
    if kind is list:
        return all(map(_is_json, value))  # type: ignore[call-overload]
    if kind is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())  # type: ignore[attr-defined]
    return kind in (str, bool, type(None))
