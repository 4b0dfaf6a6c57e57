"""What a user may hang into a fit: early stopping, checkpoints, a log, progress."""

from bpxp.callbacks.checkpoint import Checkpoint
from bpxp.callbacks.csv_log import CSVLog
from bpxp.callbacks.early_stopping import EarlyStopping
from bpxp.training.callback import Callback
from bpxp.training.progress import Progress

__all__ = ["CSVLog", "Callback", "Checkpoint", "EarlyStopping", "Progress"]
