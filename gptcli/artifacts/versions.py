"""Semantic versions (SemVer 2.0.0), and what may name a model or an alias."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from gptcli.errors import SpecError

BUMPS = ("major", "minor", "patch")
LONGEST = 200  # bytes: a version names a folder, and .VERSION.partial beside it
_NUMBER = "(0|[1-9][0-9]*)"
# Of a pre-release, what is all digits is a number, and has no leading zeros; of a build it may.
_PRERELEASE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD = r"[0-9A-Za-z-]+"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_PRERELEASE}(?:\.{_PRERELEASE})*))?(?:\+{_BUILD}(?:\.{_BUILD})*)?"
)
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")


def is_version(text: str) -> bool:
    return len(text) <= LONGEST and _VERSION.fullmatch(text) is not None


def version_order(version: str) -> tuple[Any, ...]:
    """A sort key of semantic precedence (SemVer 2.0.0 §11), then of spelling, where builds alone differ; what is no
    version comes first."""
    match = _VERSION.fullmatch(version) if is_version(version) else None
    if match is None:
        return (-1, version)
    prerelease = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in (match[4].split(".") if match[4] else [])
    )
    return (*(int(part) for part in match.groups()[:3]), not prerelease, prerelease, version)


def highest_version(versions: Iterable[str]) -> str | None:
    """The highest release, or the highest pre-release where there is no release."""
    known = [version for version in versions if is_version(version)]
    released = [version for version in known if not _VERSION.fullmatch(version)[4]]  # type: ignore[index]
    return max(released or known, key=version_order, default=None)


def next_version(versions: Iterable[str], bump: str) -> str:
    """The version after the highest release of `versions` by `bump` (major, minor or patch), whatever pre-releases
    stand above it; after no version at all: after 0.0.0.

    Where there are pre-releases alone, the highest one's own release is next as far as that is such a step: 1.0.0-rc.1
    is followed by 1.0.0 whatever the bump, 1.1.0-rc.1 by 1.1.0, or by 2.0.0 where `bump` is major.
    """
    match = _VERSION.fullmatch(highest_version(versions) or "0.0.0")
    assert match is not None
    major, minor, patch = (int(part) for part in match.groups()[:3])
    is_prerelease = match[4] is not None
    if bump == "major":
        return f"{major}.0.0" if is_prerelease and minor == patch == 0 else f"{major + 1}.0.0"
    if bump == "minor":
        return f"{major}.{minor}.0" if is_prerelease and patch == 0 else f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch}" if is_prerelease else f"{major}.{minor}.{patch + 1}"


def require_version(version: str) -> None:
    """SpecError unless it is a semantic version, of at most LONGEST characters."""
    if len(version) > LONGEST:
        raise SpecError(f"{version[:20]}… is too long for a version", f"a version has at most {LONGEST} characters")
    if not is_version(version):
        raise SpecError(f"{version} is no semantic version", "write MAJOR.MINOR.PATCH, for example 1.2.0 or 1.3.0-rc.1")


def require_bump(bump: str) -> None:
    """SpecError unless it is major, minor or patch."""
    if bump not in BUMPS:
        raise SpecError(f"{bump!r} is no part of a version", f"bump is one of {', '.join(BUMPS)}")


def require_name(name: str, what: str) -> None:
    """SpecError unless a model or an alias may be named so: letters, digits, `_`, `-` and `.`, and no version."""
    if not _NAME.fullmatch(name):
        raise SpecError(f"{name!r} can't name {what}", "use letters, digits, _ - and .")
    if is_version(name):
        raise SpecError(f"{name!r} can't name {what}: it reads like a version", "choose a word")
