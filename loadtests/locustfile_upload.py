"""Uploads of 4 MiB, as fast as each user gets them through: the upstream's count and checksum are compared."""

import hashlib
import random
from typing import Any

from locust import FastHttpUser, constant, task

BODY_BYTES = 4 << 20
BODY = random.Random(1).randbytes(BODY_BYTES)
EXPECTED = {"bytes": BODY_BYTES, "sha256": hashlib.sha256(BODY).hexdigest()}


class UploadUser(FastHttpUser):
    wait_time = constant(0)

    @task
    def upload(self) -> None:
        # Locust's annotations leave out bytes, which it sends as they are.
        body: Any = BODY
        with self.client.post("/sink/checksum", data=body, name="upload", catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif answer.json() != EXPECTED:
                answer.failure("not all bytes came through")
            else:
                answer.success()
