"""The papers behind each part of ntkdecay, as BibTeX."""

import sys
from typing import Any

PAPERS = {
    "l2": """@inproceedings{lewkowycz2020training,
  title = {On the training dynamics of deep networks with {$L_2$} regularization},
  author = {Lewkowycz, Aitor and Gur-Ari, Guy},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020},
  eprint = {2006.08643},
  archiveprefix = {arXiv}
}""",
    "intrinsic_lr": """@inproceedings{li2020reconciling,
  title = {Reconciling modern deep learning with traditional optimization analyses: the intrinsic learning rate},
  author = {Li, Zhiyuan and Lyu, Kaifeng and Arora, Sanjeev},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2020},
  eprint = {2010.02916},
  archiveprefix = {arXiv}
}""",
    "periodic": """@inproceedings{lobacheva2021periodic,
  title = {On the periodic behavior of neural network training with batch normalization and weight decay},
  author = {Lobacheva, Ekaterina and Kodryan, Maxim and Chirkova, Nadezhda and Malinin, Andrey and Vetrov, Dmitry},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021},
  eprint = {2106.15739},
  archiveprefix = {arXiv}
}""",
    "output_scale": """@article{kanoh2021unintended,
  title = {Unintended effects on adaptive learning rate for training neural network with output scale change},
  author = {Kanoh, Ryuichi and Sugiyama, Mahito},
  year = {2021},
  eprint = {2103.03466},
  archiveprefix = {arXiv}
}""",
    "width": """@inproceedings{dyer2020asymptotics,
  title = {Asymptotics of wide networks from {Feynman} diagrams},
  author = {Dyer, Ethan and Gur-Ari, Guy},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  eprint = {1909.11304},
  archiveprefix = {arXiv}
}""",
    "spectral": """@inproceedings{velikanov2024generalization,
  title = {Generalization error of spectral algorithms},
  author = {Velikanov, Maksim and Panov, Maxim and Yarotsky, Dmitry},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2403.11696},
  archiveprefix = {arXiv}
}""",
    "equivalents": """@article{atanasov2024scaling,
  title = {Scaling and renormalization in high-dimensional regression},
  author = {Atanasov, Alexander and Zavatone-Veth, Jacob A. and Pehlevan, Cengiz},
  year = {2024},
  eprint = {2405.00592},
  archiveprefix = {arXiv}
}""",
    "hierarchy": """@inproceedings{huang2020dynamics,
  title = {Dynamics of deep neural networks and neural tangent hierarchy},
  author = {Huang, Jiaoyang and Yau, Horng-Tzer},
  booktitle = {International Conference on Machine Learning},
  year = {2020},
  eprint = {1909.08156},
  archiveprefix = {arXiv}
}""",
    "neural_tangents": """@inproceedings{novak2020neural,
  title = {Neural Tangents: fast and easy infinite neural networks in {Python}},
  author = {Novak, Roman and Xiao, Lechao and Hron, Jiri and Lee, Jaehoon and Alemi, Alexander A. and
            Sohl-Dickstein, Jascha and Schoenholz, Samuel S.},
  booktitle = {International Conference on Learning Representations},
  year = {2020},
  eprint = {1912.02803},
  archiveprefix = {arXiv}
}""",
    "structured": """@inproceedings{novak2022fast,
  title = {Fast finite width neural tangent kernel},
  author = {Novak, Roman and Sohl-Dickstein, Jascha and Schoenholz, Samuel S.},
  booktitle = {International Conference on Machine Learning},
  year = {2022},
  eprint = {2206.08720},
  archiveprefix = {arXiv}
}""",
    "rotation": """@inproceedings{kosson2024rotational,
  title = {Rotational Equilibrium: How Weight Decay Balances Learning Across Neural Networks},
  author = {Kosson, Atli and Messmer, Bettina and Jaggi, Martin},
  booktitle = {International Conference on Machine Learning},
  year = {2024},
  eprint = {2305.17212},
  archiveprefix = {arXiv}
}""",
    "timescale": """@misc{wang2024set,
  title = {How to set {AdamW}'s weight decay as you scale model and dataset size},
  author = {Wang, Xi and Aitchison, Laurence},
  year = {2024},
  eprint = {2405.13698},
  archiveprefix = {arXiv}
}""",
    "power_lines": """@misc{bergsma2025power,
  title = {Power Lines: Scaling Laws for Weight Decay and Batch Size in {LLM} Pre-training},
  author = {Bergsma, Shane and Dey, Nolan and Gosal, Gurpreet and Gray, Gavia and Soboleva, Daria and Hestness, Joel},
  year = {2025},
  eprint = {2505.13738},
  archiveprefix = {arXiv}
}""",
}

BEHIND = {
    "datasets": (),
    "deep_linear": ("l2",),
    "finite_width": ("l2", "hierarchy"),
    "homogeneity": ("l2",),
    "kernels": ("l2", "neural_tangents", "structured"),
    "networks": ("l2",),
    "optimizers": ("l2",),
    "output_scale": ("output_scale",),
    "power_counting": ("l2", "width"),
    "predict": ("l2", "neural_tangents"),
    "report": (),
    "risk": ("l2", "spectral", "equivalents"),
    "scale_invariant": ("intrinsic_lr", "periodic"),
    "stax": ("neural_tangents",),
    "symbolic": ("l2", "intrinsic_lr", "periodic", "output_scale"),
    "training": ("l2",),
    "weight_decay": ("rotation", "timescale", "power_lines"),
}


def citation(*used: Any) -> str:
    """BibTeX of ntkdecay and of the papers behind what was used.

    Args:
        used: functions, classes or modules of ntkdecay, or names of its parts such as
            "scale_invariant"; none: every part that this process has imported.

    Raises:
        ValueError: for something that is no part of ntkdecay.

    >>> import ntkdecay
    >>> entries = ntkdecay.citation("output_scale")
    >>> [line for line in entries.splitlines() if line.startswith("@")]
    ['@software{ntkdecay,', '@article{kanoh2021unintended,']
    """
    parts = [_part(item) for item in used] or [n for n in BEHIND if f"ntkdecay.{n}" in sys.modules]
    keys = dict.fromkeys(key for part in parts for key in BEHIND[part])
    return "\n\n".join([_software(), *(PAPERS[key] for key in PAPERS if key in keys)]) + "\n"


def _part(item: Any) -> str:
    """The part of ntkdecay that something belongs to."""
    path = item if isinstance(item, str) else getattr(item, "__module__", None)
    path = path or getattr(item, "__name__", "")
    if path.startswith("neural_tangents"):
        return "stax"
    part = path.removeprefix("ntkdecay.").partition(".")[0]
    if part not in BEHIND:
        named = (
            repr(item) if isinstance(item, str) else getattr(item, "__name__", type(item).__name__)
        )
        raise ValueError(
            f"`used` must name parts of ntkdecay ({', '.join(BEHIND)}) or be functions of theirs, not {named}."
        )
    return part


def _software() -> str:
    from ntkdecay import __version__ as version

    return f"@software{{ntkdecay,\n  title = {{ntkdecay: what $L_2$ regularization does to the training of wide networks}},\n  version = {{{version}}}\n}}"
