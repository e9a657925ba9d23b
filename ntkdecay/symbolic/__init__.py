"""Every numbered statement of the four papers, checked; `python -m ntkdecay.symbolic` prints them.

A check is a proof by computer algebra, an identity on random cases in floating point, or a
simulation, and each comes with mutants that must be refuted: see `symbolic.registry`.
"""

from ntkdecay.symbolic import closed_form as closed_form
from ntkdecay.symbolic import deep_linear as deep_linear
from ntkdecay.symbolic import intrinsic_lr as intrinsic_lr
from ntkdecay.symbolic import l2 as l2
from ntkdecay.symbolic import output_scale as output_scale
from ntkdecay.symbolic import periodic as periodic
from ntkdecay.symbolic import recurrent as recurrent
from ntkdecay.symbolic import representation as representation
from ntkdecay.symbolic import scale_invariant_steps as scale_invariant_steps
from ntkdecay.symbolic import width as width
from ntkdecay.symbolic.registry import PAPERS, STATEMENTS, Statement, Verdict, statement

__all__ = ["PAPERS", "STATEMENTS", "Statement", "Verdict", "statement"]
