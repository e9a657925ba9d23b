"""Formulas as MathML, which browsers draw themselves: no script, no font, no network."""

from html import escape

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def mathml(translator, node: nodes.Element, display: bool) -> str:
    source = node.astext()
    if display and ("\\\\" in source or "&" in source):
        source = rf"\begin{{aligned}}{source}\end{{aligned}}"
    try:
        return convert(source, display="block" if display else "inline")
    except Exception as error:
        logger.warning("formula %r: %r", source, error, location=node)
        return f"<code>{escape(source)}</code>"


def visit_inline(translator, node: nodes.Element) -> None:
    translator.body.append(mathml(translator, node, display=False))
    raise nodes.SkipNode


def visit_block(translator, node: nodes.Element) -> None:
    translator.body.append(
        f'<div class="math-block">{mathml(translator, node, display=True)}</div>\n'
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(visit_inline, None),
        block_renderers=(visit_block, None),
    )
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
