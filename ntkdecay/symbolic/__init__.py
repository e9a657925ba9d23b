"""Every numbered statement of the four papers, checked; `python -m ntkdecay.symbolic` prints them.

A check is a proof by computer algebra, an identity on random cases in floating point, or a
simulation, and each comes with mutants that must be refuted: see `symbolic.registry`.
"""

import importlib

from ntkdecay._extras import extra

with extra("symbolic"):
    from ntkdecay.symbolic.registry import PAPERS, STATEMENTS, Statement, Verdict, statement

__all__ = ["PAPERS", "STATEMENTS", "Statement", "Verdict", "statement"]

# Importing a module registers its statements, in the papers' order.
for _name in (
    "l2",
    "width",
    "deep_linear",
    "closed_form",
    "representation",
    "intrinsic_lr",
    "scale_invariant_steps",
    "periodic",
    "recurrent",
    "output_scale",
):
    importlib.import_module(f"{__name__}.{_name}")
