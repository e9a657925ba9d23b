"""The pages that are made from the code and its results: the API, the figures, the benchmarks."""

import importlib
import inspect
import json
import re
import sys
import zlib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
MODULES = (
    "kernels",
    "homogeneity",
    "predict",
    "training",
    "optimizers",
    "weight_decay",
    "networks",
    "scale_invariant",
    "scale_invariant.networks",
    "output_scale",
    "finite_width",
    "risk",
    "deep_linear",
    "power_counting",
    "datasets",
    "report",
    "symbolic",
    "symbolic.registry",
)


def inventories() -> dict[str, tuple[str, str]]:
    """`docs/inventories/NAME.txt` as Sphinx wants them: the few names we link to, no network."""
    mapping = {}
    (DOCS / "_build").mkdir(exist_ok=True)
    for path in sorted((DOCS / "inventories").glob("*.txt")):
        url, *entries = path.read_text().splitlines()
        head = f"# Sphinx inventory version 2\n# Project: {path.stem}\n# Version: \n# The remainder of this file is compressed using zlib.\n"
        target = DOCS / "_build" / f"{path.stem}.inv"
        body = "".join(entry + "\n" for entry in entries if entry)
        target.write_bytes(head.encode() + zlib.compress(body.encode()))
        mapping[path.stem] = (url, str(target))
    return mapping


def write(path: Path, text: str) -> None:
    """Leaves a page alone that has not changed, so that a second build is quick."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def api() -> None:
    """A page for each public module, with a table of its names."""
    for name in MODULES:
        module = importlib.import_module(f"ntkdecay.{name}")
        full = module.__name__
        names = getattr(module, "__all__", None) or [
            key
            for key, value in vars(module).items()
            if not key.startswith("_") and getattr(value, "__module__", None) == full
        ]
        rows = []
        for key in names:
            value = getattr(module, key)
            if not (inspect.isroutine(value) or inspect.isclass(value)):
                continue
            line = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
            rows.append(f"   * - `~{full}.{key}`\n     - {line}")
        table = ".. list-table::\n   :widths: 30 70\n\n" + "\n".join(rows) if rows else ""
        write(
            DOCS / "api" / f"{name}.rst",
            f"{full}\n{'=' * len(full)}\n\n{table}\n\n.. automodule:: {full}\n   :members:\n",
        )


def figures() -> None:
    """Each paper's figures with their verdicts, as `examples/reproduce.py` lists them."""
    sys.path.append(str(ROOT / "examples"))
    reproduce = importlib.import_module("reproduce")
    for folder in sorted(p for p in (ROOT / "figures").iterdir() if p.is_dir()):
        lines = [f"# Figures of `{folder.name}`", ""]
        for path in sorted(folder.glob("*.json")):
            content = json.loads(path.read_text())
            title, *rest = reproduce.section(f"../../figures/{folder.name}/{path.stem}", content)
            lines += [title.replace(f"../../figures/{folder.name}/", ""), *rest]
        write(DOCS / "papers" / f"{folder.name}_figures.md", "\n".join(lines))


def benchmarks() -> None:
    """The ratios that `make bench` kept."""
    text = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(path.read_text())
        if "rows" in result:  # a table of its own page
            continue
        text.append(
            f"## {path.stem}\n\n{result['machine']}; {result['versions']}; {result['date']}\n"
        )
        text.append("| benchmark | median (ms) |\n| --- | ---: |")
        text += [f"| {n} | {1e3 * seconds:.3g} |" for n, seconds in result["seconds"].items()]
        text.append("")
        if result["ratios"]:
            text.append("| against | how many times as fast |\n| --- | ---: |")
            text += [f"| {n} | {ratio:.2f} |" for n, ratio in result["ratios"].items()]
            text.append("")
    empty = "No results are kept in this copy: `make bench` writes them.\n"
    write(DOCS / "_build" / "benchmarks.md", "\n".join(text) or empty)


def accelerators() -> None:
    """What `make accelerator` kept of each device."""
    sys.path.append(str(ROOT / "benchmarks"))
    accelerator = importlib.import_module("accelerator")
    lines: list[str] = []
    for path in sorted((ROOT / "benchmarks" / "accelerator").glob("*.json")):
        lines += accelerator.table(json.loads(path.read_text()))
    write(
        DOCS / "_build" / "accelerators.md",
        "\n".join(lines) or "No results are kept in this copy.\n",
    )


def solvers() -> None:
    """What `benchmarks/bench_flow_solvers.py` measured: the default beside the best of diffrax and scipy."""
    path = ROOT / "benchmarks" / "results" / "flow_solvers.json"
    if not path.exists():
        write(DOCS / "_build" / "solvers.md", "No results are kept in this copy.\n")
        return
    result = json.loads(path.read_text())
    lines = [
        f"{result['machine']}; {result['versions']}; {result['date']}\n",
        "| samples × outputs | loss | ratio | λ | β | t | error | default (s) | diffrax (s) | ratio | scipy (s) | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    for row in result["rows"]:
        cell = row["cell"]
        cells = ["×".join(map(str, cell["shape"])), cell["loss"], f"{cell['ratio']:.0e}"]
        cells += [f"{cell['l2']:g}", str(cell["momentum"] or ""), f"{cell['t']:.0e}"]
        cells += [f"{row['error']:.0e}", f"{row['default']:.2g}"]
        for names in (
            ("Tsit5", "Dopri8", "Kvaerno3", "Kvaerno5"),
            ("DOP853", "LSODA", "BDF", "Radau"),
        ):
            times = {name: row[name] for name in names if row[name] is not None}
            best = min(times, key=times.__getitem__) if times else None
            cells += (
                [f"{best} {times[best]:.2g}", f"{row['default'] / times[best]:.2f}"]
                if best
                else ["", ""]
            )
        lines.append("| " + " | ".join(cells) + " |")
    write(DOCS / "_build" / "solvers.md", "\n".join(lines) + "\n")


def single_signatures() -> None:
    """A function with several signatures for type checkers is shown with the one that it has."""
    for name, module in sorted(sys.modules.items()):
        if name.startswith("ntkdecay.") and hasattr(module, "overload"):
            analyzer = ModuleAnalyzer.for_module(name)  # kept by Sphinx, which asks it
            analyzer.analyze()
            analyzer.overloads.clear()


def generate(app: Sphinx) -> None:
    api()
    single_signatures()
    figures()
    benchmarks()
    accelerators()
    solvers()


def public_name(app: Sphinx, env, node: nodes.Element, contnode: nodes.Node):
    """`homogeneity.degree` and `ntkdecay.predict._state.State` are what their public names are."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    plain = ".".join(part for part in target.split(".") if not part.startswith("_"))
    objects = env.domains["py"].objects
    for name in (plain, f"ntkdecay.{plain}"):
        if name in objects and name.startswith("ntkdecay"):
            found = objects[name]
            return make_refnode(
                app.builder, node["refdoc"], found.docname, found.node_id, contnode, name
            )
    return None


def skip(app: Sphinx, what: str, name: str, obj: object, skipped: bool, options: object):
    """A NamedTuple's fields are told in its own docstring."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def plain(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """|x|, * and t_ mean in our docstrings what they mean in mathematics."""
    math = False
    for i, line in enumerate(lines):
        if line.strip() and not line.startswith(" "):
            math = line.startswith(".. ")
        if not (math or line.lstrip().startswith((">>>", "...", ".. "))):
            parts = line.split("`")
            parts[::2] = [re.sub(r"[|*]|(?<=\w)_(?=\W|$)", r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "`".join(parts)


ARRAY_LIKE = re.compile(
    r"(~?jax[\w.]*\.)?Array \| ~?(numpy\.)?ndarray \| [^,\[\]()]*?\bint \| float \| complex"
)


def short(
    app: Sphinx, what: str, name: str, obj: object, options: object, given: str, returned: str
):
    """`ArrayLike` has been written out by the time that Python shows it to us."""
    if name.rpartition(".")[2] in ("EnsembleFn", "PredictFnState", "Snapshot"):
        return "", None  # what the package alone makes
    shorter = (text and ARRAY_LIKE.sub("~jax.typing.ArrayLike", text) for text in (given, returned))
    return tuple(shorter)


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", generate)
    app.connect("missing-reference", public_name)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", short)
    app.connect("autodoc-process-docstring", plain, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
