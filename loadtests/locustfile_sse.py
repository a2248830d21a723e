"""Streamed chat completions at the pace of a model: every byte is compared, the first event and each pause are timed.

Three rows come of it: `sse first event` (from the request), `sse longest pause` (between two arrivals; the upstream's
own is 20 ms) and `sse` (the whole stream). A relay that gathers events shows in the first two.
"""

import itertools
import time

from locust import HttpUser, constant, task

from loadtests.fake_answers import StreamUsage, chat_completion_events

MODEL = "gpt-fake"
WORDS = 50
INTERVAL_MS = 20
PATH = f"/fake/v1/chat/completions?words={WORDS}&interval_ms={INTERVAL_MS}"
EXPECTED = b"".join(chat_completion_events(MODEL, WORDS, StreamUsage.ABSENT))
QUESTION = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "How are you?"}]}
HEADERS = {"Authorization": "Bearer sk-load"}


class SseUser(HttpUser):
    wait_time = constant(0)

    @task
    def stream(self) -> None:
        begin_s = time.perf_counter()
        with self.client.post(
            PATH, json=QUESTION, headers=HEADERS, name="sse (response head)", stream=True, catch_response=True
        ) as answer:
            arrivals_s, received = [begin_s], b""
            for chunk in answer.iter_content(None):
                arrivals_s.append(time.perf_counter())
                received += chunk
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif received != EXPECTED:
                answer.failure(f"{len(received)} bytes that are not the {len(EXPECTED)} sent")
            else:
                answer.success()
                self.report(arrivals_s, len(received))

    def report(self, arrivals_s: list[float], size: int) -> None:
        pauses_s = [later - earlier for earlier, later in itertools.pairwise(arrivals_s[1:])]
        rows = {
            "sse first event": arrivals_s[1] - arrivals_s[0],
            "sse longest pause": max(pauses_s),
            "sse": arrivals_s[-1] - arrivals_s[0],
        }
        for name, seconds in rows.items():
            self.environment.events.request.fire(
                request_type="SSE",
                name=name,
                response_time=seconds * 1000,
                response_length=size,
                exception=None,
                context={},
            )
