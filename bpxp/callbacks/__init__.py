"""What a user may hang into a fit: early stopping, checkpoints, a log, progress."""

from bpxp.callbacks.base import Callback
from bpxp.callbacks.log import CSVLog
from bpxp.callbacks.progress import Progress
from bpxp.callbacks.saving import Checkpoint
from bpxp.callbacks.stopping import EarlyStopping

__all__ = ["CSVLog", "Callback", "Checkpoint", "EarlyStopping", "Progress"]
