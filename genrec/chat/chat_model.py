"""A chat model behind an OpenAI-compatible address: one request, one message back.

In: the body of a request to `/chat/completions`. Out: the message of the answer. Used by `ask_rules.py` (a model reads rules)
and `talker.py` (a model speaks). Nothing of what is sent or answered goes to a log.

    ChatModel("http://localhost:11434/v1", "qwen3").complete({"messages": [...]})["content"]
"""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from genrec.errors import GenrecError, SettingError

MOST_READ = 2**20  # bytes of an answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key would follow it to any host."""

    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirects)


class ChatModelError(GenrecError, RuntimeError):
    """The chat model cannot be reached, or does not answer as it was asked to."""


@dataclass(frozen=True)
class ChatModel:
    """url: up to and with `/v1`. key: sent as a bearer token where given. timeout: seconds of one answer."""

    url: str
    model: str
    key: str | None = None
    timeout: float = 30.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise SettingError(f"The chat model's url must begin with http:// or https://, got {self.url!r}.")

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The model's message. Raises `ChatModelError`."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = json.dumps({"model": self.model} | body).encode()
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data, headers)
        try:
            with OPENER.open(request, timeout=self.timeout) as response:
                message = json.loads(response.read(MOST_READ))["choices"][0]["message"]
        except (OSError, http.client.HTTPException) as error:
            raise ChatModelError(f"The chat model at {self.url} cannot be reached: {error}.") from None
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise self.strange(f"an answer of chat completions ({type(error).__name__})") from None
        if not isinstance(message, dict):
            raise self.strange("an answer of chat completions (its message is no object)")
        return message

    def strange(self, what: str) -> ChatModelError:
        """The error for an answer that is not what it should be."""
        return ChatModelError(f"The chat model {self.model!r} did not give {what}.")
