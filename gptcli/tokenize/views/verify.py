"""`gptcli tokenize --verify`: a tokens artifact read again in full, beside the corpus it was made of."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gptcli.artifacts.manifest import MANIFEST, FileEntry, Inputs, Manifest, content_sha256
from gptcli.artifacts.project import Project
from gptcli.artifacts.schemas import SPLITS
from gptcli.console import Report, human_bytes, print_rows
from gptcli.errors import ArtifactError
from gptcli.progress import Progress
from gptcli.runtime.executor import default_workers, map_ordered
from gptcli.tokenize.views.artifact import TOKENIZER, Behind, corpus_behind, finished, splits_of
from gptcli.tokenize.views.checks import Findings, Pair, begin_worker, check_file, check_shard
from gptcli.tokenize.views.parity import check_tokenizer
from gptcli.tokenize.views.visible import print_ascii, printable
from gptcli.tokenizer import Tokenizer

WORTH_A_WORKER = 16 << 20  # bytes of token shards: a process takes as long to start as to check some 40 MB of text

# Every kind of finding, in the order in which they are told: the first one found is what fails the command.
KINDS = {
    "manifest": "manifest.json does not agree with itself",
    "checksum": "files that are not what the manifest says",
    "files": "files that the manifest does not name, or shards of the corpus without tokens",
    "tokenizer": "the tokenizer cannot be opened",
    "shard": "shards that cannot be read",
    "corpus": "shards of the corpus that are damaged",
    "rows": "rows that are not the corpus's documents",
    "bytes": "documents with another number of bytes than recorded",
    "frame": "documents that do not stand between bos and eos",
    "control": "documents with a control id inside",
    "vocabulary": "documents with an id outside the vocabulary",
    "round_trip": "texts that do not decode to themselves",
    "encoding": "documents that the engine now encodes otherwise",
    "figures": "totals that are not the manifest's",
    "parity": "texts on which tokenizer.model and tokenizer.json differ",
    "injection": "texts that give a control id",
}


@dataclass
class Verified:
    """What was found, what could not be looked at, and what differs without being damage."""

    findings: Findings = field(default_factory=Findings)
    unchecked: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    looked_at: dict[str, int] = field(default_factory=dict)


def verify(project: Project, name: str | None, progress: Progress) -> Report:
    """Every check on tokens/NAME; the report's figures have `faults`, which `require_whole` turns into an error.

    Raises ArtifactError only where there are no such tokens or their manifest can't be read.
    """
    place, manifest = finished(project, name)
    behind = corpus_behind(project, manifest)
    found = Verified()
    if behind.missing:
        found.unchecked.append(f"{behind.missing}: texts, rows and round trip")
    _check_files(found, place, manifest)
    tokenizer = _open(found, place)
    if tokenizer is not None:
        _check_tokenizer(found, tokenizer, manifest)
        _check_shards(found, place, manifest, behind, progress)
        if not tokenizer.engine.is_lossless and found.findings.changed:
            found.remarks.append(
                f"{found.findings.changed:,} of {found.findings.compared:,} documents decode to another text: this "
                "tokenizer rewrites what it reads"
            )
    told = found.findings
    faults = {kind: told.faults[kind] for kind in KINDS if kind in told.faults}
    figures = {
        "whole": not faults,
        "faults": [{"kind": kind, "count": count, "example": text} for kind, (count, text) in faults.items()],
        "unchecked": found.unchecked,
        "remarks": found.remarks,
        "files": len(manifest.files),
        "documents": told.documents,
        "bytes": told.bytes,
        "tokens": told.tokens,
        "compared_documents": told.compared,
        "changed_documents": told.changed,
        "encoded_again": told.again,
        **found.looked_at,
    }
    verdict = "DAMAGED" if faults else "whole"
    return Report(f"{project.relative(place)}: {verdict}", project.relative(place), figures)


def print_shown(report: Report, as_json: bool) -> None:
    """Print what `verify` found."""
    if as_json:
        print_ascii(report)
        return
    told = report.figures
    print(report.title)
    rows = [
        ("files", f"{told['files']:,}"),
        ("documents", f"{told['documents']:,}, {human_bytes(told['bytes'])}, {told['tokens']:,} tokens"),
        ("decoded", f"{told['compared_documents']:,} documents, and compared with their texts"),
        ("encoded again", f"{told['encoded_again']:,} documents"),
    ]
    if "awkward_texts" in told:
        texts = f"{told['awkward_texts']:,} awkward texts, {told['injected_texts']:,} with control tokens"
        rows.append(("tried", texts))
    rows += [("not checked", reason) for reason in told["unchecked"]]
    rows += [("remark", remark) for remark in told["remarks"]]
    for fault in told["faults"]:
        rows.append((fault["kind"].upper(), f"{fault['count']:,} {KINDS[fault['kind']]}"))
        rows.append(("", printable(fault["example"])))
    print_rows(rows)
    sys.stdout.flush()


def require_whole(report: Report) -> None:
    """Raise ArtifactError for the first kind of damage in a report of `verify`."""
    faults = report.figures["faults"]
    if not faults:
        return
    first, *rest = faults
    more = f" (and {len(rest)} more kind{'s' if len(rest) > 1 else ''} of damage)" if rest else ""
    corpus = "the corpus is damaged: gptcli corpus --force, then " if first["kind"] == "corpus" else ""
    raise ArtifactError(
        f"{report.path}: {printable(first['example'])}{more}", f"{corpus}gptcli tokenize --force builds it again"
    )


def _check_files(found: Verified, place: Path, manifest: Manifest) -> None:
    """The manifest by itself, what it does not name, and the checksums of what is no shard: those of shards are looked
    at where they are read, in parallel."""
    told = content_sha256(
        manifest.kind, manifest.format_version, manifest.spec, manifest.files, Inputs(manifest.inputs)
    )
    if told != manifest.content_sha256:
        found.findings.add("manifest", f"{MANIFEST}: content_sha256 does not match its own fields")
    shards = {path.name for paths in splits_of(place).values() for path in paths}
    for entry in manifest.files:
        if entry.path not in shards:
            check_file(found.findings, place / entry.path, entry, "checksum")
    named = {entry.path for entry in manifest.files}
    present = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    for extra in sorted(present - named - {MANIFEST}):
        found.findings.add("files", f"{extra}: the manifest does not name it")


def _open(found: Verified, place: Path) -> Tokenizer | None:
    try:
        return Tokenizer.load(place / TOKENIZER)
    except ArtifactError as error:
        found.findings.add("tokenizer", error.message)
        found.unchecked.append("the shards: there is no tokenizer to read them with")
        return None


def _check_tokenizer(found: Verified, tokenizer: Tokenizer, manifest: Manifest) -> None:
    """The two files of a tokenizer that was taken may differ: then it is remarked, not damage."""
    findings = Findings()
    found.looked_at |= check_tokenizer(tokenizer, findings.add)
    if not manifest.stats["trained"]:
        count, example = findings.faults.pop("parity", (0, ""))
        if count:
            found.remarks.append(f"{count:,} texts on which the taken tokenizer's files differ, first: {example}")
    found.findings += findings


def _check_shards(found: Verified, place: Path, manifest: Manifest, behind: Behind, progress: Progress) -> None:
    """All shards, in as many processes as they are worth; then the totals of every split."""
    entries = {entry.path: entry for entry in manifest.files}
    beside = {entry.path: entry for entry in behind.manifest.files} if behind.manifest else {}
    pairs = {
        split: [
            Pair(path, entries[path.name], behind.path and behind.path / path.name, beside.get(path.name))
            for path in paths
            if path.name in entries
        ]
        for split, paths in splits_of(place).items()
    }
    for name in _without_tokens(beside, pairs):
        found.findings.add("files", f"{name}: the corpus has this shard, the tokens lack it")
    waiting = [pair for found_pairs in pairs.values() for pair in found_pairs]
    workers = max(1, min(default_workers(), sum(pair.entry.bytes for pair in waiting) // WORTH_A_WORKER, len(waiting)))
    totals = {split: Findings() for split in pairs}
    with progress.bar("verifying", sum(pair.entry.bytes for pair in waiting), "bytes") as bar:
        for pair, done in zip(
            waiting, map_ordered(check_shard, waiting, workers, begin_worker, (place / TOKENIZER,)), strict=True
        ):
            totals[pair.tokens.name.partition("-")[0]] += done
            bar.advance(pair.entry.bytes)
    for split, done in totals.items():
        _check_totals(done, split, manifest)
        found.findings += done


def _without_tokens(beside: dict[str, FileEntry], pairs: dict[str, list[Pair]]) -> list[str]:
    there = {pair.tokens.name for found in pairs.values() for pair in found}
    return [name for name in beside if re.fullmatch(rf"({'|'.join(SPLITS)})-\d+\.arrow", name) and name not in there]


def _check_totals(done: Findings, split: str, manifest: Manifest) -> None:
    recorded = manifest.stats["splits"].get(split, {})
    if "shard" in done.faults:
        return
    for key, count in (("documents", done.documents), ("bytes", done.bytes), ("tokens", done.tokens)):
        if recorded.get(key, count) != count:
            done.add("figures", f"{split}: {count:,} {key} where the manifest has {recorded[key]:,}")
