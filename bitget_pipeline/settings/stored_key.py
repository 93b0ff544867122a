"""
The Bitget key that `bitget-pipeline credentials set` keeps: encrypted in the instance's folder.

Input: the folder and a key file; output: `Credentials`. The credentials are a Fernet token (AES-128-CBC with HMAC-SHA256,
https://cryptography.io/en/latest/fernet/) in `<home>/credentials.enc`; what decrypts them lies outside of that folder, so
that a copy of the data does not carry the key along. Both files are for their owner alone, and are refused otherwise.
Whoever runs programs as the same user can read both: against that no file on the same machine protects.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DiskFull, SettingsInvalid
from ..exchange.credentials import Credentials

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

STORED = "credentials.enc"
"""The file in the instance's folder."""

AGAIN = (
    "store the key anew with `bitget-pipeline credentials set`, or remove it with `bitget-pipeline credentials clear`"
)
MOST_BYTES = 64 * 1024  # ours are below one KiB; whatever else lies there is not read into memory


@dataclass(frozen=True, slots=True)
class KeyStore:
    """Where the credentials of one instance lie. `exchange` is sealed in with them: they are for no other."""

    home: Path
    key_file: Path
    exchange: str

    @property
    def path(self) -> Path:
        """The encrypted file."""
        return self.home / STORED

    def exists(self) -> bool:
        """Whether something is stored (not whether it can be read)."""
        return self.path.exists()

    def read(self) -> Credentials | None:
        """What is stored, None when nothing is. Raises SettingsInvalid when it cannot be read or is not for us."""
        token = _read_private(self.path)
        if token is None:
            return None
        from cryptography.fernet import InvalidToken

        try:
            stored = json.loads(self._fernet().decrypt(token))
            exchange = stored["exchange"]
            credentials = Credentials(stored["key"], stored["secret"], stored["passphrase"])
        except (InvalidToken, ValueError, KeyError, TypeError):
            raise SettingsInvalid(
                f"the stored Bitget key cannot be decrypted with {self.key_file}", where=str(self.path), remedy=AGAIN
            ) from None
        if exchange != self.exchange:
            raise SettingsInvalid(
                f"the stored key is for the exchange {exchange!r}, not {self.exchange!r}",
                where=str(self.path),
                remedy="choose the folder of the right exchange with --home, or remove the file",
            )
        return credentials

    def write(self, credentials: Credentials) -> None:
        """
        Replace what is stored, in one step. Raises SettingsInvalid or DiskFull, and then the old file is still there.
        """
        if self.key_file.is_relative_to(self.home):
            raise SettingsInvalid(
                "the key file lies in the folder whose copies it should not be in",
                where=str(self.key_file),
                remedy="choose another place with BITGET_PIPELINE_CREDENTIALS_KEY_FILE",
            )
        content = {
            "exchange": self.exchange,
            "key": credentials.key,
            "secret": credentials.secret,
            "passphrase": credentials.passphrase,
        }
        self.restore(self._fernet(create=True).encrypt(json.dumps(content).encode()) + b"\n")

    def snapshot(self) -> bytes | None:
        """The encrypted file as it is, for `restore`; None when there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def restore(self, content: bytes | None) -> None:
        """Put the encrypted file back as it was."""
        if content is None:
            self.remove()
        else:
            _make_folder(self.home, mode=0o777)
            _write_private(self.path, content, replace=True)

    def remove(self) -> bool:
        """Forget the key; whether there was one. The key file stays: other folders' keys may need it."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SettingsInvalid(f"the stored key cannot be removed: {error.strerror}", where=str(self.path)) from None
        return True

    def _fernet(self, *, create: bool = False) -> Fernet:
        from cryptography.fernet import Fernet

        key = _read_private(self.key_file)
        if key is None and create:
            _make_folder(self.key_file.parent, mode=0o700)
            _write_private(self.key_file, Fernet.generate_key() + b"\n", replace=False)
            key = _read_private(self.key_file)
        if key is None:
            raise SettingsInvalid(
                "the stored Bitget key cannot be read: the file that decrypts it is missing",
                where=str(self.key_file),
                remedy=f"put it back, or {AGAIN}",
            )
        try:
            return Fernet(key.strip())
        except ValueError:
            raise SettingsInvalid(
                "the file that decrypts stored keys is damaged",
                where=str(self.key_file),
                remedy=f"put the right one back; or remove it, and {AGAIN}",
            ) from None


def default_key_file(config_home: str | None) -> Path:
    """One for all instances of a user. `config_home` is XDG_CONFIG_HOME, if it is set."""
    base = Path(config_home) if config_home else Path.home() / ".config"
    return base / "bitget_pipeline" / "credentials.key"


def require_private(descriptor: int, path: Path) -> None:
    """Raises SettingsInvalid when an open file can be read by others than its owner."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise SettingsInvalid("that is not a plain file", where=str(path), remedy="name a file")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(status.st_mode)
        raise SettingsInvalid(
            f"others on this machine may read or change this file (mode {mode:04o})",
            where=str(path),
            remedy=f"chmod 600 {path}",
        )


def _read_private(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    with os.fdopen(descriptor, "rb") as file:
        require_private(descriptor, path)
        return file.read(MOST_BYTES)


def _make_folder(path: Path, *, mode: int) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsInvalid(f"the folder cannot be made: {error.strerror}", where=str(path)) from None


def _write_private(path: Path, content: bytes, *, replace: bool) -> None:
    """Write a whole file or none, with mode 0600. Without `replace` the first of several writers wins."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    except OSError as error:
        raise SettingsInvalid(f"cannot write there: {error.strerror}", where=str(path.parent)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(name, path)
        else:
            os.link(name, path)
    except FileExistsError:
        pass  # another process was first: its file is the one
    except OSError as error:
        raise DiskFull(f"cannot write: {error.strerror}", where=str(path), remedy="make room on the disk") from None
    finally:
        Path(name).unlink(missing_ok=True)


def _unreadable(path: Path, error: OSError) -> SettingsInvalid:
    return SettingsInvalid(
        f"this file cannot be read: {error.strerror}",
        where=str(path),
        remedy="it has to belong to the user who runs this",
    )
