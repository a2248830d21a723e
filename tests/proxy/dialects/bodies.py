"""Bodies of errors as the providers' documents and their users' reports show them."""

from typing import Any

import msgspec

from proxy.rules.headers import Header

JSON: list[Header] = [(b"content-type", b"application/json")]


def openai(message: str, kind: str | None, code: str | None) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def anthropic(kind: str, message: str) -> bytes:
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011C"})


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message, "status": status, "details": details}})


def reason(word: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": word,
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }


def quota(*quotas: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [
            {
                "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                "quotaId": name,
                "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
                "quotaValue": "20",
            }
            for name in quotas
        ],
    }


def retry(delay: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
