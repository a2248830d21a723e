"""What workers remember of a request, in words beside the values. Pure.

A worker of another version may remember in another form: what is not understood is shown as it is.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.errors import NO_CREDENTIAL
from proxy.key_pool.traces import BackendLook, Look, Trace, Try

NO_KEYS = "no group that the route may use holds a key (those that cannot be decrypted do not count)"


def explained(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a trace with `message` in it, and in each of its looks and attempts."""
    try:
        trace = msgspec.convert(found, Trace)
    except msgspec.ValidationError:
        return dict(found)
    looks = [{"message": of_look(look), **msgspec.to_builtins(look)} for look in trace.looks]
    attempts = [
        {"message": of_attempt(attempt), **msgspec.to_builtins(attempt), "ended_s": attempt.ended_s or None}
        for attempt in trace.tries
    ]
    backends = [{"message": of_backends(look), **msgspec.to_builtins(look)} for look in trace.backends]
    return {"message": of_trace(trace), **found, "looks": looks, "tries": attempts, "backends": backends}


def line(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns a trace as a line, with the names that the live log has; None for one of another version.

    `credential` and `status` are those of the last attempt, `time` in milliseconds since 1970.
    """
    try:
        trace = msgspec.convert(found, Trace)
    except msgspec.ValidationError:
        return None
    last = trace.tries[-1] if trace.tries else Try("", "", 0.0, 0, "")
    return {
        "time": int(trace.began_s * 1000),
        "request_id": trace.request_id,
        "route": trace.route,
        "model": trace.model,
        "status": last.status,
        "credential": last.credential,
        "attempts": len(trace.tries),
        "error": trace.ending or None,
        "message": of_trace(trace),
    }


def of_trace(trace: Trace) -> str:
    count = len(trace.tries)
    attempts = "no attempt" if count == 0 else "1 attempt" if count == 1 else f"{count} attempts"
    told = [f"{attempts}, under configuration {trace.version}"]
    if trace.ending:
        told.append(f"ended with {trace.ending}")
    if trace.ending == NO_CREDENTIAL.word and not trace.looks:
        told.append(NO_KEYS)
    told += [of_attempt(attempt) for attempt in trace.tries]
    return "; ".join(told)


def of_attempt(attempt: Try) -> str:
    answered = f"answered {attempt.status}" if attempt.status else "gave no answer"
    said = [each for each in (attempt.says, attempt.error) if each]
    wait = f", to wait {attempt.wait_s:g} s" if attempt.wait_s is not None else ""
    return f"{attempt.credential or attempt.backend} {answered} ({', '.join(said)}{wait})"


def of_backends(look: BackendLook) -> str:
    told = [f"{look.usable} of {look.total} backends usable in upstream {look.upstream}"]
    if look.tried:
        told.append(f"{look.tried} tried already")
    if look.passed_over:
        told.append(", ".join(f"{count} {why}" for why, count in sorted(look.passed_over.items())))
    told.append(look.chosen or "none chosen")
    return "; ".join(told)


def of_look(look: Look) -> str:
    groups = f"{'group' if len(look.groups) == 1 else 'groups'} {', '.join(look.groups)}"
    told = [f"{look.usable} of {look.total} usable in {groups}"]
    if look.tried:
        told.append(f"{look.tried} tried already")
    if look.banned:
        told.append("banned: " + ", ".join(f"{count} {cause}" for cause, count in sorted(look.banned.items())))
    told.append(f"{look.chosen}, {look.how}" if look.chosen else "none chosen")
    return "; ".join(told)
