"""Every error that Ayllu raises on purpose, as one tree.

    AylluError
    ├── ConfigError        bad key, value or combination             exit 2
    ├── DataError          unreadable or inconsistent data           exit 2
    ├── CheckpointError    missing, mismatched or unsafe weights     exit 2
    │   └── DamagedCheckpoint   bytes differ from the manifest
    ├── MissingExtra       an optional package is not installed      exit 2
    ├── TrainingDiverged   non-finite loss; names step and batch     exit 1
    ├── RequestError       the caller's fault                        HTTP 400, exit 2
    │   ├── ContextTooLong
    │   ├── UnknownAdapter                                       HTTP 404
    │   ├── NotFound       nothing of this name is the caller's      HTTP 404
    │   ├── BadMedia
    │   └── Refused        a guard said no                           HTTP 403
    ├── NotAllowed         key or rate                               HTTP 401 / 429
    ├── Overloaded         queue full, try later                     HTTP 503
    ├── EngineFailed       the engine's thread ended by an error     HTTP 500
    ├── JobCancelled       a worker is asked to stop its job         exit 1
    └── ClaimLost          another worker has taken the job over     exit 1

A message says what was found, what was expected and what to do. `exit_code` is what a command returns.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class AylluError(Exception):
    """Base of all errors that speak to a person."""

    exit_code = 1


class ConfigError(AylluError):
    """A bad key, value or combination of settings."""

    exit_code = 2


class DataError(AylluError):
    """Data that can't be read or that contradicts itself."""

    exit_code = 2


class CheckpointError(AylluError):
    """Weights that are missing, mismatched, damaged or unsafe to load."""

    exit_code = 2


class DamagedCheckpoint(CheckpointError):
    """A checkpoint of a run that isn't what was written: an older one may be intact."""


class MissingExtra(AylluError):
    """An optional package that this feature needs is not installed."""

    exit_code = 2


@contextmanager
def extra(name: str, what: str, instead: str = "") -> Iterator[None]:
    """Imports within are of packages that an extra installs; `what` needs them, `instead` is a way without."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f"{what} needs the extra `{name}`: pip install 'ayllu[{name}]'{instead}.") from error


class TrainingDiverged(AylluError):
    """The loss is no longer a finite number; the message names step and batch."""


class RequestError(AylluError):
    """The caller asked for something that can't be done as asked."""

    exit_code = 2


class ContextTooLong(RequestError):
    """More tokens than the model's context takes."""


class UnknownAdapter(RequestError):
    """No adapter of this name is loaded."""


class NotFound(RequestError):
    """A job, a file or a draft that isn't there, or isn't the caller's: both look the same."""


class BadMedia(RequestError):
    """An image or a sound that can't be decoded safely."""


class Refused(RequestError):
    """A guard refused the request."""


class NotAllowed(AylluError):
    """A missing or wrong key, or a rate that was exceeded."""

    exit_code = 2


class Overloaded(AylluError):
    """The queue is full; trying again later helps: `retry_s` says when, as far as that is known."""

    retry_s = 1


class EngineFailed(AylluError):
    """The engine's thread has ended by an error; the service must be started again."""


class JobCancelled(AylluError):
    """Raised inside a worker at its next sign of life after its job was cancelled."""


class ClaimLost(AylluError):
    """A worker was silent for so long that its job has been given to another one, or deleted."""
