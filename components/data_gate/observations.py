"""What DataGate has seen in the shards of a split."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Observations:
    """What was seen in the images of a split.

    Attributes:
      examples: number of examples.
      problems: a line for each image that cannot be decoded or is too large.
      other_sizes: number of images of an unexpected size.
      other_size: description of the first of these images.
    """

    examples: int = 0
    problems: list[str] = field(default_factory=list)
    other_sizes: int = 0
    other_size: str = ""

    def extend(self, other: Observations) -> None:
        """Adds what was seen in another shard of the split."""
        self.examples += other.examples
        self.problems += other.problems
        self.other_sizes += other.other_sizes
        self.other_size = self.other_size or other.other_size
