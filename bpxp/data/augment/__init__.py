"""Data augmentation on the device: random transforms of each mini-batch, anew in each epoch.

``trainer.fit(train, …, augment=[Affine(degrees=10, shift=2), ElasticDistortion(), Noise(0.05)])``. A transform is a
hashable function ``(x, y, key, /, *, xp) -> (x, y)``; your own may be mixed with these. Its random numbers are a
function of the network's seed, the number of the training step and the transform's place in the list: the same on
every array library, and after resuming. Evaluation is not augmented.
"""

from bpxp.data.augment.affine import Affine, Flip, Rotate, Scale, Shift
from bpxp.data.augment.compose import Compose
from bpxp.data.augment.elastic import ElasticDistortion
from bpxp.data.augment.geometric import Geometric
from bpxp.data.augment.mixup import Mixup
from bpxp.data.augment.pixels import Cutout, Noise

__all__ = [
    "Affine",
    "Compose",
    "Cutout",
    "ElasticDistortion",
    "Flip",
    "Geometric",
    "Mixup",
    "Noise",
    "Rotate",
    "Scale",
    "Shift",
]
