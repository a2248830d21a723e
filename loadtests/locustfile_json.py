"""Short chat completions, as fast as each user gets them: every answer is compared with what the upstream sends."""

from locust import FastHttpUser, constant, task

from loadtests.fake_answers import chat_completion

MODEL = "gpt-fake"
WORDS = 8
PATH = f"/fake/v1/chat/completions?words={WORDS}"
EXPECTED = chat_completion(MODEL, WORDS)
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "How are you?"}]}
HEADERS = {"Authorization": "Bearer sk-load"}


class JsonUser(FastHttpUser):
    wait_time = constant(0)

    @task
    def ask(self) -> None:
        with self.client.post(PATH, json=QUESTION, headers=HEADERS, name="json", catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif answer.json() != EXPECTED:
                answer.failure("not the upstream's answer")
            else:
                answer.success()
