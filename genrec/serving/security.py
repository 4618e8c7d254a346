"""Who may ask, how often and how much: API keys, rates, sizes.

In: a key file and limits. Out: for each request, whose it is, or why not. Keys are random 256-bit texts shown once, when they
are made; the file holds their SHA-256 and what they may do. (A slow hash protects secrets that can be guessed: not these.)

    genrec keys add keys.json web --scopes recommend events --rate 50
    genrec serve runs/shop --keys keys.json
"""

import hashlib
import hmac
import json
import os
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from genrec.errors import GenrecError, SettingError, check_choice

SCOPES = ("recommend", "events", "catalog", "admin")
_PREFIX = "gr-"


class DeniedError(GenrecError):
    """No key, an unknown one, or one that may not do this."""

    def __init__(self, message: str, known: bool) -> None:
        super().__init__(message)
        self.known = known  # 403, else 401


class TooFastError(GenrecError):
    """The key's rate is used up. retry_after: seconds."""

    def __init__(self, name: str, rate: float, retry_after: float) -> None:
        super().__init__(f"Key {name!r} may make {rate:g} requests a second. Try again in {retry_after:.1f} s.")
        self.name, self.retry_after = name, retry_after


@dataclass(frozen=True)
class Key:
    """name: for logs and people. digest: SHA-256 of the secret. scopes: what it may do. rate: requests a second (0: any)."""

    name: str
    digest: str
    scopes: tuple[str, ...]
    rate: float = 0.0


def make_key(path: Path, name: str, scopes: tuple[str, ...] = SCOPES[:1], rate: float = 0.0) -> str:
    """Add a key to the file (made if missing, readable by its owner alone) and return its secret, which is kept nowhere."""
    for scope in scopes:
        check_choice("scope", scope, SCOPES)
    if rate < 0:
        raise SettingError(f"rate must be 0 (no limit) or more requests a second, got {rate}.")
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise SettingError(f"{path} has a key named {name!r} already. Remove it there, or choose another name.")
    secret = _PREFIX + secrets.token_urlsafe(32)
    keys.append(Key(name, _digest(secret), scopes, rate))
    part = path.with_name(path.name + ".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump([asdict(key) for key in keys], file, indent=2)
    part.replace(path)
    return secret


def read_keys(path: Path) -> list[Key]:
    """Keys of a file that `make_key` wrote. Raises `SettingError` naming what is wrong with it."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, list):
            raise TypeError("it must be a list")
        keys = [Key(k["name"], k["digest"], tuple(k["scopes"]), float(k["rate"])) for k in found]
    except FileNotFoundError:
        raise SettingError(f"There is no key file {path}. `genrec keys add {path} NAME` makes one.") from None
    except OSError as error:
        raise SettingError(f"The key file {path} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SettingError(f"{path} is not a key file ({type(error).__name__}: {error}).") from None
    for key in keys:
        for scope in key.scopes:
            check_choice(f"scope of key {key.name!r}", scope, SCOPES)
    return keys


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Gate:
    """Lets requests through, or says why not. Without keys everybody may do everything, for a server on loopback."""

    def __init__(self, keys: list[Key] | None) -> None:
        self.keys = keys
        self._buckets: dict[str, tuple[float, float]] = {}  # per key: tokens left, when that was
        self._lock = threading.Lock()

    def enter(self, authorization: str | None, scope: str) -> str:
        """authorization: the header, "Bearer gr-...". Returns the key's name. Raises `DeniedError`, `TooFastError`."""
        if self.keys is None:
            return "anonymous"
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            raise DeniedError("An API key is needed: send the header `Authorization: Bearer gr-...`.", known=False)
        digest = _digest(secret.strip())
        key = next((key for key in self.keys if hmac.compare_digest(key.digest, digest)), None)
        if key is None:
            raise DeniedError("This API key is not known here.", known=False)
        if scope not in key.scopes:
            raise DeniedError(f"Key {key.name!r} may {', '.join(key.scopes)}; this needs {scope!r}.", known=True)
        if key.rate:
            self._spend(key)
        return key.name

    def _spend(self, key: Key) -> None:
        """A token bucket: `rate` tokens a second, and as many saved up at most (at least one)."""
        with self._lock:
            now, most = time.monotonic(), max(1.0, key.rate)
            tokens, when = self._buckets.get(key.name, (most, now))
            tokens = min(most, tokens + (now - when) * key.rate)
            if tokens < 1:
                self._buckets[key.name] = tokens, now
                raise TooFastError(key.name, key.rate, (1 - tokens) / key.rate)
            self._buckets[key.name] = tokens - 1, now
