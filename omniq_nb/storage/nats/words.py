"""What NATS and its driver report, as our errors: what happened, and what to do about it.

Not here: trying again (`omniq_nb.storage.nats.connection`).
"""

from collections.abc import Sequence

from nats.errors import Error as NatsError

from omniq_nb.config.options import NatsOptions
from omniq_nb.config.urls import redacted
from omniq_nb.errors import StoreError, StoreUnavailable

FAILURES = (NatsError, OSError)
"""All that the driver raises of itself. A time-out is an `OSError`."""

# Codes of JetStream's API.
NOT_ENABLED = (10039, 10076)
NO_STREAM = 10059
NO_MESSAGE = 10037
WRONG_SEQUENCE = (10071, 10164)
_FULL = (10023, 10026, 10027, 10028, 10047, 10077)
_PASSING = (10008, 10009)
_PASSING_BATCH = ("batch is incomplete", "sequence is missing", "too many inflight")


class Lost(StoreUnavailable):
    """The connection broke, or no answer came: what was asked may have been done all the same."""


def where(options: NatsOptions) -> str:
    """Name the servers as a user knows them, with nothing secret."""
    return f"NATS at {', '.join(redacted(server) for server in options.servers)}"


def passes(code: int, said: str) -> bool:
    """Whether the same may succeed in a moment: no leader yet, a batch that came in part."""
    return code in _PASSING or any(words in said for words in _PASSING_BATCH)


def unreachable(options: NatsOptions, reasons: Sequence[Exception]) -> StoreUnavailable:
    """Make the error for servers none of which lets us in."""
    said = _without_secrets("; ".join(dict.fromkeys(map(_said, reasons))), options)
    lowered = said.lower()
    if "authorization" in lowered or "authentication" in lowered:
        return StoreUnavailable(
            f"{where(options)} does not let this user in: {said}. Check user and password, token "
            "or creds_file, and the server's configuration of users."
        )
    if "certificate" in lowered or "ssl" in lowered or "tls" in lowered:
        return StoreUnavailable(
            f"{where(options)}: no encrypted connection: {said}. The server's certificate must "
            "name this host and come from an authority known here (SSL_CERT_FILE names others)."
        )
    if any(isinstance(reason, ConnectionResetError) for reason in reasons):
        # What the server said is lost when it closes the connection before we have read it.
        return StoreUnavailable(
            f"{where(options)} hung up ({said}): it restarts, or it does not let this user in. "
            "Check user and password, token or creds_file, and the server's log."
        )
    return StoreUnavailable(
        f"{where(options)} cannot be reached: {said}. Check that the server runs, its address and "
        "port, and that no firewall is in between."
    )


def no_credentials(options: NatsOptions) -> StoreUnavailable:
    """Make the error for a credentials file that is not there."""
    return StoreUnavailable(
        f"creds_file: there is no file {options.creds_file!r}, which {where(options)} needs. Give "
        "the path of the file that `nsc generate creds` wrote."
    )


def lost(options: NatsOptions) -> Lost:
    """Make the error for a request whose connection broke before it was answered."""
    return Lost(f"The connection to {where(options)} was lost.")


def unanswered(options: NatsOptions) -> Lost:
    """Make the error for a request that nobody answered in time."""
    return Lost(
        f"{where(options)} did not answer in time. Check that it runs and is not overloaded, or "
        f"raise the option timeout ({options.timeout:g} seconds)."
    )


def forbidden(options: NatsOptions, subject: str) -> StoreUnavailable:
    """Make the error for a subject that the server does not let this user use."""
    return StoreUnavailable(
        f"{where(options)} does not permit this user to publish to {subject!r}. "
        "docs/backends.md lists the permissions that are needed."
    )


def without_jetstream(options: NatsOptions) -> StoreUnavailable:
    """Make the error for a server, or an account in it, that stores nothing."""
    return StoreUnavailable(
        f"JetStream is not enabled: {where(options)}. Start the server with `nats-server -js`, or "
        "add `jetstream {}` to its configuration and to this user's account."
    )


def too_old(options: NatsOptions, version: str) -> StoreUnavailable:
    """Make the error for a server without atomic batches."""
    return StoreUnavailable(
        f"{where(options)} is version {version}; omniq_nb needs 2.12 or later, which can store "
        "several messages as a whole. Upgrade the server."
    )


def refused(options: NatsOptions, code: int, said: str) -> StoreError:
    """Make the error for what JetStream does not do."""
    if code in NOT_ENABLED:
        return without_jetstream(options)
    if code == NO_STREAM:
        return StoreUnavailable(
            f"A stream of the prefix {options.stream!r} is missing: {where(options)}. Somebody "
            "deleted it; connect again to make a new one."
        )
    if code in _FULL:
        return StoreError(
            f"{where(options)} has no room: {said}. It took nothing of this. Make room on its "
            "disk, raise its limits, or purge old tasks, results and events, and try again."
        )
    if passes(code, said):
        return StoreUnavailable(
            f"{where(options)} is not ready: {said}. Try again in a moment, and see the log of "
            "the server if it stays so."
        )
    return StoreError(f"{where(options)} refused this, and wrote nothing: {said} (code {code}).")


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).removeprefix("nats: ").strip("'\" ") or type(error).__name__


def _without_secrets(text: str, options: NatsOptions) -> str:
    for secret in (options.password, options.token):
        if secret:
            text = text.replace(secret, "***")
    return text
