"""When a phase of training ends before its last epoch."""

from __future__ import annotations

import math

from models.training.schedules import Schedule


class EarlyStopping:
    """Counts the epochs without a lower validation loss.

    Before the learning rate has settled (see `Schedule.settled`), the validation loss says little, and no
    epoch is counted.

    Attributes:
      lowest: lowest validation loss of the phase so far.
      waited_epochs: number of counted epochs since the last improvement.
    """

    def __init__(self, schedule: Schedule, patience_epochs: int) -> None:
        """Initializes the count.

        Args:
          schedule: learning-rate schedule of the phase.
          patience_epochs: how many counted epochs without improvement end the phase.
        """
        self._schedule = schedule
        self._patience_epochs = patience_epochs
        self.lowest = math.inf
        self.waited_epochs = 0

    def update(self, val_loss: float, last_step: int) -> bool:
        """Takes an epoch into account.

        Args:
          val_loss: validation loss after the epoch.
          last_step: number of the epoch's last step, counted from 0 through the phase.

        Returns:
          Whether the phase ends here.
        """
        if val_loss < self.lowest:
            self.lowest, self.waited_epochs = val_loss, 0
        elif self._schedule.settled(last_step):
            self.waited_epochs += 1
        return self.waited_epochs >= self._patience_epochs
