"""What the scripts of two-layer networks train on: images as vectors, even digits against odd ones."""

import numpy as np

from ntkdecay import datasets, report


def even_odd(
    options: report.Options, samples: int, name: datasets.Name = "digits"
) -> tuple[np.ndarray, np.ndarray]:
    """The first images, (samples, pixels), and labels +1 for even digits and −1 for odd ones, (samples, 1).

    Raises:
        ValueError: if there are fewer images.
    """
    data = datasets.load(name, options.data_dir)
    if samples > len(data.x_train):
        raise ValueError(
            f"`--samples` is {samples}; {name} has {len(data.x_train)} training images."
        )
    return data.x_train[:samples].reshape(samples, -1), datasets.parity(data.y_train[:samples])
