"""Where a job's files lie: parts, journal, manifest, summary and refused rows.

An output without an ending is a folder of parts; one with an ending is one file, made of parts that lie in a hidden
folder beside it until then. Knows names. Does not know what is written into them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DataInvalid
from service.batch.formats import FORMATS, format_named, format_of
from service.batch.job import Job, Shard

PART = re.compile(r"part-\d{5,}\.\w+")
UNFINISHED = re.compile(r"\.(part-\d{5,}|_SUCCESS|_summary|_refused)\b.*\.tmp")  # left by an attempt that died


@dataclass(frozen=True)
class Output:
    """The names of all files of one job."""

    target: Path
    format: str
    is_folder: bool

    @classmethod
    def of(cls, job: Job, default: str) -> "Output":
        """Told by the ending of the output, or by `output_format`. Raises: DataInvalid."""
        target = Path(job.output).expanduser()
        by_ending = format_of(target.name)
        if target.suffix and by_ending is None and job.output_format is None:
            known = ", ".join(each.suffixes[0] for each in FORMATS)
            raise DataInvalid(
                f"no format has the ending {target.suffix!r} (known are {known})",
                place=str(target),
                remedy="choose another ending, or give --format",
            )
        chosen = job.output_format or (by_ending.name if by_ending else default)
        return cls(target, chosen, not target.suffix)

    @property
    def work(self) -> Path:
        """The folder of what is needed until the job is done."""
        return self.target / "_job" if self.is_folder else self._beside("job", hidden=True)

    @property
    def journal(self) -> Path:
        """What has been done."""
        return self.work / "journal.ndjson"

    @property
    def lock(self) -> Path:
        """Held by the run that is at work."""
        return self.work / "lock"

    @property
    def success(self) -> Path:
        """The manifest, written last."""
        return self.target / "_SUCCESS" if self.is_folder else self._beside("success.json")

    @property
    def summary(self) -> Path:
        """What the rows and scores looked like."""
        return self.target / "_summary.json" if self.is_folder else self._beside("summary.json")

    @property
    def refused(self) -> Path:
        """The rows that could not be scored."""
        return self.target / "_refused.ndjson" if self.is_folder else self._beside("refused.ndjson")

    def part(self, shard: Shard) -> Path:
        """The file of one shard."""
        folder = self.target if self.is_folder else self.work
        return folder / f"part-{shard.index:05d}{format_named(self.format).suffixes[0]}"

    def refused_part(self, shard: Shard) -> Path:
        """The refused rows of one shard."""
        return self.work / f"refused-{shard.index:05d}.ndjson"

    def _beside(self, ending: str, hidden: bool = False) -> Path:
        return self.target.with_name(f"{'.' if hidden else ''}{self.target.name}.{ending}")
