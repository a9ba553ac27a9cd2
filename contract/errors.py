"""Every error a user can meet, named for the fact.

Knows nothing but words. Does not know HTTP statuses or exit codes: one table in `service/api` maps the
classes to statuses, and `cli` turns any of them into one message and a non-zero exit.

    FullfunnelError
    ├── RunInvalid            the run file says something impossible
    │   └── UnknownKey
    ├── DataInvalid           the log cannot be trained on, or scored
    │   ├── SourceMissing  ColumnMissing  ColumnTypeInvalid  MixedTypes
    │   ├── LabelInvalid  LabelWithoutParent  OneClass  EmptySplit
    │   └── UselessFeature  LeakingFeature  ValueMissing  TargetExists
    ├── BundleInvalid         the bundle cannot be written, trusted or served
    │   ├── BundleMissing  BundleCorrupt  BundleTooNew  BundleExists
    │   └── TargetUnwritable  ParityBroken  GoldenMismatch
    ├── RequestInvalid        a client sent something that cannot be scored
    │   ├── BodyMalformed  BodyTooLarge  TooManyCandidates  TooManyRequests  TooDeep
    │   ├── TableTooLarge  UnknownJob  KeyReused
    │   ├── UnknownModel  UnknownField  UnknownFeature  FeatureMissing  ValueInvalid  LengthMismatch
    │   └── SeveralInvalid
    ├── JobInvalid            a batch job cannot be carried out
    │   └── JobChanged  JobRunning  RowsRefused  WorkerLost  StorageFailed  PlaceForbidden
    ├── SwapRefused           the model that answers cannot be changed as asked
    │   └── SwapBusy  SwapForbidden  SwapInvalid
    ├── AccessRefused         whoever asks may not
    │   └── KeyMissing  KeyForbidden
    ├── NotReady              no verified bundle to answer from
    ├── Overloaded            more work at once than the service takes on
    ├── SettingInvalid        a setting of the service is impossible
    ├── AddressUnavailable    the service cannot listen where it was told to
    └── ScoreInvalid          the model answered something that is not a probability
"""

from collections.abc import Sequence


class FullfunnelError(Exception):
    """A fact, the place it was found, and what to do about it.

    >>> str(FullfunnelError("label is 2, not 0 or 1", place="log.parquet, column 'click', row 7", remedy="clean it"))
    "log.parquet, column 'click', row 7: label is 2, not 0 or 1. Remedy: clean it."
    """

    def __init__(self, fact: str, place: str = "", remedy: str = "") -> None:
        self.fact, self.place, self.remedy = fact, place, remedy
        super().__init__(fact, place, remedy)  # what a copy in another process is made from

    def __str__(self) -> str:
        text = f"{self.place}: {self.fact}." if self.place else f"{self.fact}."
        return f"{text} Remedy: {self.remedy}." if self.remedy else text


class RunInvalid(FullfunnelError):
    """The run file cannot be carried out as written."""


class UnknownKey(RunInvalid):
    """A key the run file may not have; the message names the nearest one it may."""


class DataInvalid(FullfunnelError):
    """The impression log cannot be trained on, or a table not be scored."""


class SourceMissing(DataInvalid):
    """No file at the path, folder or glob."""


class ColumnMissing(DataInvalid):
    """A feature, label or key names a column the files do not have."""


class ColumnTypeInvalid(DataInvalid):
    """A column's type does not fit the feature's kind."""


class MixedTypes(DataInvalid):
    """A column or sequence holds values of several types."""


class LabelInvalid(DataInvalid):
    """A label outside {0, 1}."""


class LabelWithoutParent(DataInvalid):
    """A positive label whose `given` task is negative: a conversion without a click."""


class OneClass(DataInvalid):
    """A task has only positives or only negatives in a split that needs both."""


class EmptySplit(DataInvalid):
    """A split left without rows."""


class UselessFeature(DataInvalid):
    """A feature that is constant or missing in every training row."""


class LeakingFeature(DataInvalid):
    """A feature that gives a label away."""


class ValueMissing(DataInvalid):
    """A missing value in a feature declared `missing = "refuse"`."""


class TargetExists(DataInvalid):
    """A file that was to be written is there already; data are never overwritten."""


class BundleInvalid(FullfunnelError):
    """A bundle cannot be written, trusted or served."""


class BundleMissing(BundleInvalid):
    """No bundle at the path."""


class BundleCorrupt(BundleInvalid):
    """A file of the bundle is absent, extra, a link, damaged, or holds what a bundle may not."""


class BundleTooNew(BundleInvalid):
    """The bundle has a format, field or operator this version does not know."""


class BundleExists(BundleInvalid):
    """The target holds something already; published bundles are never overwritten."""


class TargetUnwritable(BundleInvalid):
    """The target's folder cannot be written."""


class ParityBroken(BundleInvalid):
    """The exported graph does not score like the network it was exported from."""


class GoldenMismatch(BundleInvalid):
    """The bundle's golden rows do not come out with the scores they were published with."""


class RequestInvalid(FullfunnelError):
    """A request that cannot be scored. `place` is the path inside the request; values are never echoed."""


class BodyMalformed(RequestInvalid):
    """Not the format it claims to be."""


class BodyTooLarge(RequestInvalid):
    """More bytes than the limit."""


class TableTooLarge(RequestInvalid):
    """A table of more rows, columns or bytes, as it is decoded, than the limit."""


class UnknownJob(RequestInvalid):
    """No batch job of this id."""


class KeyReused(RequestInvalid):
    """An idempotency key that came with another job before."""


class TooManyCandidates(RequestInvalid):
    """More candidates than the limit."""


class TooManyRequests(RequestInvalid):
    """More requests in one batch call than the limit."""


class TooDeep(RequestInvalid):
    """More levels of nesting than the limit."""


class UnknownModel(RequestInvalid):
    """A model, or a version of it, that is not the one served."""


class UnknownField(RequestInvalid):
    """A field the request format does not have."""


class UnknownFeature(RequestInvalid):
    """A feature the model does not have, or has on the other side."""


class FeatureMissing(RequestInvalid):
    """A feature or value that must be given was not."""


class ValueInvalid(RequestInvalid):
    """A value of the wrong type, or a number that is not finite."""


class LengthMismatch(RequestInvalid):
    """Columns that must have one value per candidate, or sequences that run in parallel, differ in length."""


class SeveralInvalid(RequestInvalid):
    """More than one thing is wrong; `errors` holds each, in the order found."""

    def __init__(self, errors: Sequence[RequestInvalid]) -> None:
        self.errors = tuple(errors)
        super().__init__(f"{len(self.errors)} things are wrong with the request")
        self.args = (self.errors,)

    def __str__(self) -> str:
        return "\n".join([f"{self.fact}:", *(f"  {error}" for error in self.errors)])


class JobInvalid(FullfunnelError):
    """A batch job cannot be carried out as it was asked for."""


class JobChanged(JobInvalid):
    """The job was begun with another input, another bundle or other options."""


class JobRunning(JobInvalid):
    """Another run is at work on the same output."""


class RowsRefused(JobInvalid):
    """More rows cannot be scored than were allowed for."""


class PlaceForbidden(JobInvalid):
    """A path or URL that the service has not been told to touch, or that leads elsewhere."""


class WorkerLost(JobInvalid):
    """A process of the job ended before its work."""


class StorageFailed(JobInvalid):
    """The system could not read or write a file that the job needs."""


class SwapRefused(FullfunnelError):
    """The model that answers cannot be changed as asked."""


class SwapBusy(SwapRefused):
    """It is being changed already."""


class SwapForbidden(SwapRefused):
    """Whoever asks for it is on another machine."""


class SwapInvalid(SwapRefused):
    """The bundle to change to cannot be trusted or served."""


class AccessRefused(FullfunnelError):
    """Whoever asks may not, or has not shown that it may."""


class KeyMissing(AccessRefused):
    """A key is needed, and none came that is known."""


class KeyForbidden(AccessRefused):
    """The key is known, and is not for this."""


class NotReady(FullfunnelError):
    """No verified bundle to answer from."""


class Overloaded(FullfunnelError):
    """More work at once than the service takes on; the same request may succeed a little later."""


class SettingInvalid(FullfunnelError):
    """A setting of the service is impossible, unsafe, or asks for what is not installed."""


class AddressUnavailable(FullfunnelError):
    """The service cannot listen on the address it was given."""


class ScoreInvalid(FullfunnelError):
    """The model answered NaN, or a number outside [0, 1]: a fault of the bundle, never of the client."""
