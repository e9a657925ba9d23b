"""Run the scripts behind the figures, and write figures/README.md: the gallery with every verdict.

python examples/reproduce.py [NAME …] [--theory] [--preset quick|desk|paper] [--resume]
A NAME is a script, as l2/fig5. Without one, all of them run; each in a process of its own.
"""

import argparse
import ast
import json
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from ntkdecay._options import check_writable
from ntkdecay.report import PRESETS, VERDICTS, Claim, tally

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


def offers(script: Path, preset: str) -> bool:
    """Whether a script has this preset: quick and paper always, desk where it hands one to `report.cli`."""
    if preset != "desk":
        return True
    calls = (node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Call))
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "cli"
        and any(keyword.arg == preset for keyword in call.keywords)
        for call in calls
    )


def made(folder: Path, figure: Path) -> dict[str, dict]:
    """What there is of a figure, by preset; `figure` is its JSON's place in `folder`."""
    places = [figure, *(figure.parent / preset / figure.name for preset in PRESETS)]
    contents = [content_of(folder / place) for place in places if (folder / place).exists()]
    return {content["preset"]: content for content in reversed(contents) if content}


def content_of(path: Path) -> dict:
    """A figure's JSON; nothing, and a line that says so, of one that cannot be read."""
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and content.keys() >= {"preset", "claims", "provenance"}:
            return content
    except (OSError, ValueError):
        pass
    print(f"{path} cannot be read: it is left out, and made anew by its script", file=sys.stderr)
    return {}


def done(folder: Path, name: str, preset: str) -> bool:
    """Whether this script has already made its figures, whatever their names, with this preset."""
    paper = (folder / name).parent
    contents = map(content_of, (*paper.glob("*.json"), *paper.glob(f"{preset}/*.json")))
    return any(
        content.get("preset") == preset
        and f"examples/{name}.py" in content["provenance"]["command"].split()
        for content in contents
    )


def claims_of(content: dict) -> list[Claim]:
    return [Claim(**claim) for claim in content["claims"]]


def gallery(folder: Path) -> str:
    """Every figure in `folder` at its best preset, with its picture and its claims."""
    figures = sorted(path.relative_to(folder) for path in folder.glob("*/*.json"))
    found = [(figure, presets) for figure in figures if (presets := made(folder, figure))]
    best = [presets[max(presets, key=PRESETS.index)] for _, presets in found]
    every = [claim for content in best for claim in claims_of(content)]
    lines = [
        "# Figures",
        "",
        "Made by `python examples/reproduce.py`; each links its numbers.",
        "",
        f"In all, {tally(every)}.",
        "",
    ]
    for (figure, presets), content in zip(found, best, strict=True):
        lines += section(figure.with_suffix("").as_posix(), content)
        for preset, smaller in presets.items():
            if smaller is not content:
                lines += collapsed(figure, preset, smaller)
    return "\n".join(lines)


def section(name: str, content: dict) -> list[str]:
    """A figure's heading, picture, origin and claims."""
    provenance, claims = content["provenance"], claims_of(content)
    return [
        f"## {name}, preset {content['preset']}: {tally(claims)}",
        "",
        f"![{name}]({name}.png)",
        "",
        f"Preset {content['preset']}, {provenance['data']}; {provenance['device']}, {provenance['dtype']}, "
        f"{provenance['seconds']:.0f} s, commit {provenance['commit']}. [Numbers]({name}.json)",
        "",
        "| claim | expected | measured | holds |",
        "| --- | --- | --- | --- |",
        *map(row, claims),
        "",
    ]


def row(claim: Claim) -> str:
    """A claim as a line of the table."""
    verdict = {True: "yes", False: "**no**", None: VERDICTS[None]}[claim.holds]
    if claim.revised:
        verdict += f" (criterion revised: {claim.revised})"
    cells = (
        ("ntkdecay asks: " if claim.ours else "") + claim.claim,
        claim.expected,
        claim.measured,
        verdict,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def collapsed(figure: Path, preset: str, content: dict) -> list[str]:
    """What a smaller preset found, in one line that opens."""
    claims = claims_of(content)
    place = (figure.parent / preset / figure.stem).as_posix()
    return [
        f"<details><summary>Preset {preset}: {tally(claims)}</summary>",
        "",
        *(f"- {VERDICTS[claim.holds]}: {claim.claim} ({claim.measured})" for claim in claims),
        "",
        f"[Picture]({place}.png), [numbers]({place}.json)",
        "",
        "</details>",
        "",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = scripts()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    parser.add_argument("--theory", action="store_true", help=f"only {', '.join(THEORY)}")
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what this preset has already made"
    )
    parser.add_argument("--out", type=Path, default=Path("figures"))
    options, passed_on = parser.parse_known_args()
    names = options.names or (THEORY if options.theory else tuple(known))
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no script {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        check_writable("--out", options.out)
    except ValueError as error:
        parser.error(str(error))
    without = [name for name in names if not offers(known[name], options.preset)]
    if without:
        print(f"left out, without a preset {options.preset}: {', '.join(without)}")
    names = [name for name in names if name not in without]
    failed = []
    with tqdm(names, unit="figure") as bar:
        for name in bar:
            bar.set_description(name)
            if options.resume and done(options.out, name, options.preset):
                continue
            arguments = ["--preset", options.preset, "--out", str(options.out), *passed_on]
            if subprocess.run([sys.executable, str(known[name]), *arguments]).returncode:
                failed.append(name)
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
