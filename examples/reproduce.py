"""Run the scripts behind the figures, and write figures/README.md: the gallery with every verdict.

python examples/reproduce.py [NAME …] [--theory] [--preset quick|paper] [--resume]
A NAME is a script, as l2/fig5. Without one, all of them run; each in a process of its own.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

EXAMPLES = Path(__file__).parent
THEORY = (  # theory beside a measurement
    "l2/fig5",
    "l2/deep_linear",
    "l2/auto_l2_infinite_width",
    "periodic/fig8",
    "periodic/fig9",
    "periodic/fig14",
)


def scripts() -> dict[str, Path]:
    """Every script by its name: the folder of its paper and its file."""
    found = sorted(EXAMPLES.glob("*/*.py"))
    return {
        f"{path.parent.name}/{path.stem}": path for path in found if not path.stem.startswith("_")
    }


def done(folder: Path, name: str, preset: str) -> bool:
    """Whether this script has already made its figures, whatever their names, with this preset."""
    made = (json.loads(path.read_text()) for path in (folder / name).parent.glob("*.json"))
    return any(
        content["preset"] == preset
        and f"examples/{name}.py" in content["provenance"]["command"].split()
        for content in made
    )


def gallery(folder: Path) -> str:
    """Every figure in `folder` with its picture and its claims."""
    lines = ["# Figures", "", "Made by `python examples/reproduce.py`; each links its numbers.", ""]
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text())
        held = sum(claim["holds"] for claim in content["claims"])
        provenance = content["provenance"]
        name = path.relative_to(folder).with_suffix("")
        lines += [
            f"## {name}: {held} of {len(content['claims'])} claims hold",
            "",
            f"![{name}]({name}.png)",
            "",
            f"Preset {content['preset']}, {provenance['data']}; {provenance['device']}, {provenance['dtype']}, "
            f"{provenance['seconds']:.0f} s, commit {provenance['commit']}. [Numbers]({name}.json)",
            "",
            "| claim | expected | measured | holds |",
            "| --- | --- | --- | --- |",
        ]
        for claim in content["claims"]:
            verdict = "yes" if claim["holds"] else "**no**"
            row = (claim["claim"], claim["expected"], claim["measured"], verdict)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = scripts()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--theory", action="store_true", help=f"only {', '.join(THEORY)}")
    parser.add_argument("--preset", choices=("quick", "paper"), default="quick")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what this preset has already made"
    )
    parser.add_argument("--out", type=Path, default=Path("figures"))
    options, passed_on = parser.parse_known_args()
    names = options.names or (THEORY if options.theory else tuple(known))
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no script {', '.join(unknown)}; there are {', '.join(known)}")
    failed = []
    with tqdm(names, unit="figure") as bar:
        for name in bar:
            bar.set_description(name)
            if options.resume and done(options.out, name, options.preset):
                continue
            arguments = ["--preset", options.preset, "--out", str(options.out), *passed_on]
            if subprocess.run([sys.executable, str(known[name]), *arguments]).returncode:
                failed.append(name)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "README.md").write_text(gallery(options.out))
    print(f"{options.out / 'README.md'} written")
    if failed:
        print(
            f"{len(failed)} of {len(names)} scripts did not finish: {', '.join(failed)}",
            file=sys.stderr,
        )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
