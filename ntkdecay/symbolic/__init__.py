"""Every numbered statement of the four papers, checked; `python -m ntkdecay.symbolic` prints them.

A check is a proof by computer algebra, an identity on random cases in floating point, or a
simulation of one formula, the claim. Each number, sign, exponent and relation of that formula is
then altered in turn (`--mutate`), and the check must notice: see `symbolic.registry`.
"""

import importlib

from ntkdecay._extras import extra

with extra("symbolic"):
    from ntkdecay.symbolic.claims import Claim, Relation
    from ntkdecay.symbolic.registry import (
        PAPERS,
        STATEMENTS,
        Mutation,
        Statement,
        Verdict,
        statement,
    )
    from ntkdecay.symbolic.verdicts import nonnegative, positive

__all__ = [
    "PAPERS",
    "STATEMENTS",
    "Claim",
    "Mutation",
    "Relation",
    "Statement",
    "Verdict",
    "nonnegative",
    "positive",
    "statement",
]

# Importing a module registers its statements, in the papers' order.
for _name in (
    "l2",
    "l2_networks",
    "auto_l2",
    "width",
    "deep_linear",
    "closed_form",
    "closed_form_digits",
    "late_time",
    "sgd_noise",
    "representation",
    "finite_width",
    "risk",
    "weight_decay",
    "intrinsic_lr",
    "intrinsic_lr_rates",
    "scale_invariant_steps",
    "periodic",
    "recurrent",
    "output_scale",
):
    importlib.import_module(f"{__name__}.{_name}")
