from __future__ import annotations

from pathlib import Path

import pytest

from marginlab import credentials
from marginlab.values import InputError


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_TOKEN",
        "PGPASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "RAY_AUTH_TOKEN",
        "HF_TOKEN",
        "my_api_key",
        "GITHUB_CREDENTIALS",
        "WANDB_API_KEY",
    ],
)
def test_a_secret_is_not_sent_along_in_the_open(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: that looks like a secret.*/w/secrets.env.*0600") as e:
        credentials.passed([name], {name: "hunter2"}, "/w")
    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@mlflow:5000",
        "postgresql://me:hunter2@db/x",
        "https://hunter2@host",
        "postgresql://me@db/x?password=hunter2",
    ],
)
def test_an_address_with_a_password_is_a_secret_whatever_its_name(value: str) -> None:
    with pytest.raises(InputError, match="looks like a secret") as e:
        credentials.passed(["TRACKING"], {"TRACKING": value}, "/w")
    assert "hunter2" not in str(e.value)
    with pytest.raises(InputError, match="leave the password out of the address.*Write PGPASSWORD=") as e:
        credentials.refuse_login(value, "--study-database", "PGPASSWORD=...", "/w")
    assert "hunter2" not in str(e.value)


def test_what_is_no_secret_is_sent() -> None:
    here = {"XDG_DATA_HOME": "/data", "DB": "postgresql://me@db/x", "HTTP_PROXY": "http://proxy:3128", "OTHER": "x"}
    assert credentials.passed(["XDG_DATA_HOME", "DB", "HTTP_PROXY"], here, "/w") == {k: here[k] for k in list(here)[:3]}
    with pytest.raises(InputError, match="--env MISSING: there is no such variable"):
        credentials.passed(["MISSING"], here, "/w")
    with pytest.raises(InputError, match="without a value") as e:
        credentials.passed(["PGPASSWORD=hunter2"], here, "/w")
    assert "hunter2" not in str(e.value)


def test_a_file_of_secrets_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / credentials.FILE
    path.write_text("# comment\n\nexport A=b=c\nB=\"x y\"\nC='q'\n D = \n".replace(" D = ", "D="))
    path.chmod(0o600)
    assert credentials.read(path) == {"A": "b=c", "B": "x y", "C": "q", "D": ""}
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(InputError, match=f"chmod 600 {path}"):
            credentials.read(path)
    path.chmod(0o600)
    path.write_text("A=1\nhunter2\n")
    with pytest.raises(InputError, match="line 2: write NAME=value") as e:
        credentials.read(path)
    assert "hunter2" not in str(e.value)
