"""Apache APISIX / API7 `hmac-auth` (3.11 and later): `Authorization: Signature keyId="…",…`.

Worked example. Key `john-key`, secret `john-secret-key`, listed headers `@request-target date`:

    john-key\\n
    GET /get\\n
    date: Mon, 21 Oct 2024 17:31:18 GMT\\n

HMAC-SHA256 of these three lines, the last newline included, in base64:
`ztFfl9w7LmCrIuPjRC/DWSF4gN6Bt8dBBz4y+u1pzt8=`.

Called through `schemes.SCHEMES` by `verify.py` and the client helpers. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from ..core.identity import Failure
from ..core.macs import encode_base64, mac
from ..core.message import Message, split_target
from ..core.paths import signed_form
from ..core.reasons import Reason
from .base import AUTHORIZATION, FEW, Claim, Cover, too_much

name: Final = "apisix"
carriers: Final = frozenset({AUTHORIZATION})

_WORD: Final = "Signature"
# The lookbehind keeps a long run of letters from being tried at each of them (quadratic time).
# One match a piece: it runs on to the next comma, and no value holds one.
_FIELDS: Final = re.compile(r'(?<![A-Za-z0-9])([A-Za-z0-9]+)="([^",]*)"[^,]*')
_NAMES: Final = ("keyId", "algorithm", "headers", "signature")
#: What stands around the values before the signature, as documented clients write them.
_USUAL: Final = (
    ("Signature keyId=", ",algorithm=", ",headers=", ","),
    ("Signature keyId=", ", algorithm=", ", headers=", ", "),
)
_TWICE: Final = re.compile(r",[ \t]*Signature[ \t]")
REQUEST_TARGET: Final = "@request-target"
components: Final = frozenset({REQUEST_TARGET})
form: Final = "raw"


def parse(message: Message) -> Claim | Failure | None:
    """Read `Authorization`. None without the header; WRONG_SCHEME for another word than `Signature`.

    As APISIX reads it: the text is cut at every comma, inside quotes too; in each piece the first `name="value"`
    counts; names are case sensitive; the last of equal names wins; unknown names are ignored.
    """
    text = message.get("authorization")
    if text is None:
        return None
    # What a client says before the signature is the same in each of its requests, and read once.
    before, _, signature = text.rpartition('signature="')
    usual = _usual(before) if len(before) <= 256 and signature[-1:] == '"' else None
    if usual is not None:
        signature = signature[:-1]
        if '"' not in signature and "," not in signature:
            return tuple.__new__(Claim, (*usual, signature, AUTHORIZATION))
    if not text.startswith(_WORD):
        return Failure(Reason.WRONG_SCHEME, facts={"word": _WORD})
    rest = text[len(_WORD) :]
    if rest and rest[0] not in " \t":
        return Failure(Reason.MALFORMED_AUTHORIZATION, "no blank follows the word Signature")
    found: dict[str, str] = dict(_FIELDS.findall(rest))
    if _WORD in rest and _TWICE.search(rest):
        # Two headers that the server has joined, as WSGI servers do.
        return Failure(Reason.DUPLICATE_HEADER, facts={"header": "authorization"})
    key_id, algorithm, listed, signature = [found.get(name, "") for name in _NAMES]
    headers = tuple(listed.split(" ")) if listed else ()
    if len(headers) > FEW and (problem := too_much(message, headers, components)):
        return Failure(Reason.MALFORMED_AUTHORIZATION, problem)
    return Claim(key_id, algorithm, headers, signature)


class _Listed(tuple[str, ...]):
    """Listed headers with what `cover` makes of them where all are there; names in lower case, None for the target."""

    names: frozenset[str]
    items: tuple[tuple[str, str | None], ...]


@lru_cache(maxsize=1024)
def _usual(before: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Key id, algorithm and listed headers where they are written in the usual way; None: all is to be searched."""
    pieces = before.split('"')
    if len(pieces) != 7 or tuple(pieces[::2]) not in _USUAL or any("," in value for value in pieces[1::2]):
        return None
    listed = _Listed(pieces[5].split(" ") if pieces[5] else ())
    listed.items = tuple((item, None if item == REQUEST_TARGET else item.lower()) for item in listed)
    listed.names = frozenset(name or item for item, name in listed.items)
    return None if len(listed) > FEW else (pieces[1], pieces[3], listed)


def cover(message: Message, claim: Claim) -> Cover:
    """The listed headers that the message has; APISIX skips absent ones, so they are not covered.

    A listed item finds its header in any case, and with `-` for `_` if nothing else fits; its line keeps the
    item's spelling. Only the first of repeated headers is signed, so a repeated header is not covered: whoever reads
    it could read what nobody signed.
    """
    listed = claim.headers
    if not isinstance(listed, _Listed) or message.duplicated:
        return _cover(message, listed)
    get = message.get
    lines: list[str | None] = []
    for item, name in listed.items:
        if name is None:
            lines.append(None)
        elif (value := get(name)) is not None:
            lines.append(f"{item}: {value}")
        else:
            return _cover(message, listed)
    return tuple.__new__(Cover, (listed.names, tuple(lines)))


def _cover(message: Message, listed: tuple[str, ...]) -> Cover:
    names: list[str] = []
    lines: list[str | None] = []
    for item in listed:
        if item == REQUEST_TARGET:
            names.append(item)
            lines.append(None)
            continue
        name = item.lower()
        value = message.get(name)
        if value is None and "_" in name:
            name = name.replace("_", "-")
            value = message.get(name)
        if value is not None:
            if name not in message.duplicated:
                names.append(name)
            lines.append(f"{item}: {value}")
    return Cover(frozenset(names), tuple(lines))


def _string(message: Message, key_id: str, lines: Sequence[str | None], target: str) -> bytes:
    text = key_id + "\n"
    for line in lines:
        text += f"{message.method} {target}\n" if line is None else line + "\n"
    return text.encode("latin-1")


def _target(message: Message) -> str:
    target = message.target
    if target[:1] == "/":
        return target
    path, query = split_target(target)  # an absolute form is signed as its path and query
    return f"{path}?{query}" if "?" in target else path


def signing_string(message: Message, claim: Claim, cover: Cover) -> bytes:
    """The string over the raw target."""
    return _string(message, claim.key_id, cover.lines, _target(message))


def other_strings(message: Message, claim: Claim, cover: Cover) -> Iterator[tuple[str, bytes]]:
    """The strings over the forms that APISIX itself would have used.

    APISIX signs nginx's decoded path; clients that sign what they sent are right too. A bare trailing `?` counts
    as absent there, and some servers drop it before it arrives here, so it is tried both ways.
    """
    if None not in cover.lines:
        return
    raw = _target(message)
    path, query = split_target(raw)
    tried = {raw}
    normal = signed_form(path)
    forms = []
    for label, form in (("", path), ("decoded, ", normal)):
        if form is None:
            continue
        if query:
            forms.append((f"{label}with the query", f"{form}?{query}"))
        else:
            forms.append((f"{label}without ?", form))
            forms.append((f"{label}with a bare ?", f"{form}?"))
    for label, target in forms:
        if target not in tried:
            tried.add(target)
            yield label, _string(message, claim.key_id, cover.lines, target)


def sign(
    message: Message,
    *,
    key_id: str,
    secret: bytes,
    algorithm: str = "hmac-sha256",
    headers: Sequence[str] = (REQUEST_TARGET, "date"),
) -> list[tuple[str, str]]:
    """The `Authorization` header for a message that already holds what `headers` names."""
    claim = Claim(key_id, algorithm, tuple(headers), "")
    string = signing_string(message, claim, cover(message, claim))
    signature = encode_base64(mac(algorithm, secret, string))
    value = f'{_WORD} keyId="{key_id}",algorithm="{algorithm}",headers="{" ".join(headers)}",signature="{signature}"'
    return [("Authorization", value)]
