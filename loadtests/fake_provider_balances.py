"""What Factory says of a key's allowance, in the two shapes of its API. Pure.

`GET /api/organization/members/chat-usage` is the older one, `POST /api/organization/subscription/usage` with the body
`{"useCache": true}` the newer. Both answer with one document, which other programs that ask it describe alike:
dates in milliseconds since 1970, tokens as numbers, a part for standard models and one for premium ones.
"""

from dataclasses import dataclass

from loadtests.fake_answers import Json

CHAT_USAGE = "/api/organization/members/chat-usage"
SUBSCRIPTION_USAGE = "/api/organization/subscription/usage"
METHODS = {CHAT_USAGE: "GET", SUBSCRIPTION_USAGE: "POST"}


@dataclass(frozen=True)
class Allowance:
    """Tokens that a key has used, and those that it may use, from one date to another (milliseconds since 1970)."""

    used: int = 0
    total: int = 20_000_000
    start_ms: int = 1_759_276_800_000
    end_ms: int = 1_761_955_200_000


def usage_of(allowance: Allowance) -> Json:
    used, total = allowance.used, allowance.total
    standard = {
        "userTokens": used,
        "orgTotalTokensUsed": used,
        "orgOverageUsed": 0,
        "basicAllowance": total,
        "totalAllowance": total,
        "orgOverageLimit": 0,
        "usedRatio": used / total if total else 0,
    }
    premium = dict.fromkeys(standard, 0)
    return {
        "usage": {
            "startDate": allowance.start_ms,
            "endDate": allowance.end_ms,
            "standard": standard,
            "premium": premium,
        }
    }
