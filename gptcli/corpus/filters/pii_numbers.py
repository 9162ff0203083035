"""Spans of bank accounts, payment cards and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from gptcli.corpus.filters.pii_patterns import Span, spans

# Characters of an account number by country: SWIFT's IBAN registry
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FK FI FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ DZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_IBAN = re.compile(r"([A-Z])(?<![A-Za-z0-9_][A-Z])[A-Z][0-9]{2}(?: ?[A-Z0-9]){11,30}")
_IBAN_FORM = re.compile(r"[A-Z0-9]+|(?:[A-Z0-9]{4} )+[A-Z0-9]{1,4}")  # in one, or in fours


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers (ISO 13616): length by country, remainder 1 modulo 97."""
    return spans(text, _IBAN, _iban)


def _iban(match: re.Match[str]) -> Span | None:
    text, start = match.string, match.start()
    length = _IBAN_LENGTHS.get(text[start : start + 2], 0)
    end = number = 0
    for end in range(start, match.end()):
        number += text[end] != " "
        if number == length:
            break
    end += 1
    if number != length or text[end : end + 1].isalnum() or not _IBAN_FORM.fullmatch(text, start, end):
        return None
    account = text[start:end].replace(" ", "")
    digits = "".join(str(int(sign, 36)) for sign in account[4:] + account[:4])
    return (start, end) if int(digits) % 97 == 1 else None


_CARD = re.compile(
    r"([2-6])(?<![\w.,+/-][0-9])[0-9]{3}"
    r"(?:[0-9]{9,15}|([ -])[0-9]{4}\2[0-9]{4}\2[0-9]{4}|([ -])[0-9]{6}\3[0-9]{4,5})(?![\w]|[.,-][0-9])"
)


def cards(text: str) -> Iterator[Span]:
    """Payment cards (ISO/IEC 7812): a known issuer's prefix and length, Luhn's check digit.

    In one, in fours, or 4-6-5 and 4-6-4. Of random numbers of 16 digits about one in fifty looks like one.
    """
    return spans(text, _CARD, _card)


def _card(match: re.Match[str]) -> Span | None:
    number = re.sub("[ -]", "", match[0])
    return match.span() if _issued(number) and _luhn(number) else None


def _issued(number: str) -> bool:
    """Visa, Mastercard, American Express, Diners Club, Discover, JCB, UnionPay, by their published ranges."""
    length, two, three, four = len(number), int(number[:2]), int(number[:3]), int(number[:4])
    if number[0] == "4":
        return length in (13, 16, 19)
    if two in (34, 37):
        return length == 15
    if 300 <= three <= 305 or two in (36, 38, 39):
        return length == 14
    if 51 <= two <= 55 or 2221 <= four <= 2720 or 3528 <= four <= 3589:
        return length == 16
    return length in (16, 19) and (four == 6011 or 644 <= three <= 659 or two == 62)


_TWICE = str.maketrans("0123456789", "0246813579")  # the digit sum of twice each digit


def _luhn(number: str) -> bool:
    return sum(map(int, number[-1::-2] + number[-2::-2].translate(_TWICE))) % 10 == 0


_IPV4 = re.compile(r"([0-9])(?<![\w.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9]|-[A-Za-z])")
_IPV6 = re.compile(
    r"([23])(?<![\w:.][23])[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}(?:[0-9A-Fa-f]{1,4})?(?![\w:]|\.[0-9])"
)
_COLONS = re.compile(":[0-9A-Fa-f]{0,4}:")
# The IANA registry of special-purpose addresses, with multicast and what is reserved above it
_SPECIAL = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3
"""
_NOT_PUBLIC = [
    (int(network.network_address), int(network.netmask)) for network in map(ipaddress.IPv4Network, _SPECIAL.split())
]
_VERSION_BEFORE = re.compile(
    r"(?:\bv|\bver\.?|version|release|build|revision|[=<>~^]=|[A-Za-z]-)[ :]*\Z", re.IGNORECASE
)
_TELLING = 100


def ips(text: str) -> Iterator[Span]:
    """Public IPv4 and IPv6 addresses; private, local, reserved and documentation ranges stay.

    IPv4: one of the four numbers has three digits (as 98 % of all addresses have, and hardly any version or section
    number), none has a leading zero, and no "version", "v" or == stands before. IPv6: of the assigned 2000::/3 with
    three or more groups written out, so that slices and C++ names are none.
    """
    found = list(spans(text, _IPV4, _ipv4))
    if _COLONS.search(text):
        found = sorted(found + list(spans(text, _IPV6, _ipv6)))
    return iter(found)


def _ipv4(match: re.Match[str]) -> Span | None:
    parts = match[0].split(".")
    numbers = [int(part) for part in parts]
    if max(numbers) > 255 or max(numbers) < _TELLING or any(part[0] == "0" and part != "0" for part in parts):
        return None
    address = int.from_bytes(bytes(numbers), "big")
    if any(address & mask == network for network, mask in _NOT_PUBLIC):
        return None
    start = match.start()
    return None if _VERSION_BEFORE.search(match.string[max(0, start - 12) : start]) else match.span()


def _ipv6(match: re.Match[str]) -> Span | None:
    written = match[0]
    groups = [group for group in written.split(":") if group]
    if len(groups) < 3 or (int(written[:4], 16) == 0x2001 and int(groups[1], 16) == 0x0DB8):
        return None
    try:
        ipaddress.IPv6Address(written)
    except ValueError:
        return None
    return match.span()
