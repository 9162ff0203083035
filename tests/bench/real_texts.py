"""Much real text that is no one's twin: documentation packages of Debian, and what stands installed beside Python."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

PACKAGES = (
    "python3.11-doc", "python-django-doc", "python-sqlalchemy-doc", "python-scipy-doc", "perl-doc", "manpages-dev",
    "git-doc", "vim-doc", "postgresql-doc-15", "sqlite3-doc", "rust-doc", "erlang-doc", "debian-reference-en",
    "debian-handbook", "libreoffice-help-en-us", "octave-doc", "maxima-doc", "scilab-doc", "gnuplot-doc",
)  # fmt: skip


def unrepeated_texts(folder: Path) -> list[str]:
    """Folders to make a corpus of: the packages' unpacked files and the standard library; where apt can't fetch them,
    all that is installed."""
    library = sysconfig.get_path("stdlib")
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        others = [sysconfig.get_path("purelib"), "/usr/share/doc"]
        return [place for place in [library, *others] if Path(place).is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        place = folder / package
        if not place.exists():
            subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=False, capture_output=True)
            for archive in folder.glob(f"{package}_*.deb"):
                subprocess.run(["dpkg-deb", "-x", archive.name, package], cwd=folder, check=True)
                archive.unlink()
    return [library, str(folder)]
