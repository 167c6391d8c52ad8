"""What a store answers, or why it does not, in one line that holds no secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from rtmpose.files import UserError, one_line

# Ends of the names of variables in the environment, and of keys in queries.
SECRETS = re.compile(r"(password|passwd|secret|secret_access_key|token|api_?key)$", re.IGNORECASE)
USER = re.compile(r"(\b[\w+.-]+://)[^/\s@'\"]*@")
LEAST = 5  # characters: a shorter secret would be found in any text
HIDDEN = "***"
# SQLAlchemy puts advice before what the data base has said, and the statement with its values after it.
DRIVER = re.compile(r"^\([a-z_\d]+\.[\w.]+\) (.+)$", re.MULTILINE)


@contextmanager
def reachable(uri: str) -> Iterator[None]:
    """A store that does not answer is the user's to mend: one line instead of a traceback. So are files that
    its S3 does not take or give, and a data base whose driver is not installed.
    """
    import sqlite3

    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ModuleNotFoundError as error:
        if uri.startswith(("http:", "https:", "sqlite:")):
            raise
        raise UserError(
            f"MLFLOW_TRACKING_URI: {without_password(uri)} needs the package {error.name}: pip install it "
            "(for PostgreSQL: rtmpose[postgres])"
        ) from None
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, BotoCoreError, ClientError) as error:
        raise no_answer(uri, error) from None
    except Exception as error:
        # boto3, which alone has this class, is only there where S3 is used.
        if type(error).__name__ != "S3UploadFailedError":
            raise
        raise no_answer(uri, error) from None


def no_answer(uri: str, error: Exception) -> UserError:
    """The line for a store at `uri` that answered with this error."""
    shown = without_password(uri)
    text = str(error).strip() or one_line(error)
    driver = DRIVER.search(text)
    first = driver[1] if driver else text.partition("\n")[0]
    reason = without_secrets(first.replace(uri.rstrip("/"), shown.rstrip("/")), uri)
    return UserError(f"MLFLOW_TRACKING_URI: {shown} does not answer ({reason})")


def without_password(uri: str) -> str:
    """The URI without the user, the password and the secrets in its query that some stores need: receipts are
    committed.
    """
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    query = parse_qsl(parts.query)
    if any(SECRETS.search(key) for key, _ in query):
        kept = [(key, value) for key, value in query if not SECRETS.search(key)]
        parts = parts._replace(query=urlencode(kept))
    return urlunsplit(parts) if parts != urlsplit(uri) else uri


def without_users(text: str) -> str:
    """A text in which no URL names a user or a password."""
    return USER.sub(r"\1", text)


def without_secrets(text: str, uri: str) -> str:
    """A text in which the secrets of `uri` and of this process's environment are hidden."""
    parts = urlsplit(uri)
    secrets = {value for key, value in parse_qsl(parts.query) if SECRETS.search(key)} | {
        value for key, value in os.environ.items() if SECRETS.search(key)
    }
    if "@" in parts.netloc:
        secrets.add(parts.netloc.rpartition("@")[0].partition(":")[2])
    forms = {form for secret in secrets for form in (secret, unquote(secret), quote(secret, safe=""))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= LEAST:
            text = text.replace(form, HIDDEN)
    return text
