"""sftp as fsspec has it, but with servers that this user knows, and no wait without end."""

import os
from pathlib import Path

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_CONNECT_S = 10
_SILENT_S = 30


class SftpFolder(SFTPFileSystem):  # type: ignore[misc]
    """fsspec's takes whoever answers, unless told otherwise, and reads no known_hosts."""

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.set_missing_host_key_policy(paramiko.RejectPolicy())
        for name in KNOWN_HOSTS:
            if Path(path := os.path.expanduser(name)).is_file():
                self.client.load_system_host_keys(path)
        waits = dict.fromkeys(("timeout", "banner_timeout", "auth_timeout"), _CONNECT_S)
        self.client.connect(self.host, **self.ssh_kwargs, **waits)
        transport = self.client.get_transport()
        assert transport is not None
        transport.set_keepalive(_CONNECT_S)
        self.ftp = self.client.open_sftp()
        channel = self.ftp.get_channel()
        assert channel is not None
        channel.settimeout(_SILENT_S)

    def close(self) -> None:
        """End the connection."""
        self.client.close()

    def link(self, old: str, new: str) -> None:
        """A rename that fails where `new` is there, as version 3 of the protocol has it."""
        try:
            self.ftp.rename(old, new)
        except OSError:  # OpenSSH says no more than "Failure"
            if self.exists(new):
                raise FileExistsError(new) from None
            raise


def explain_refusal(error: Exception) -> str:
    """What to do about an error of ssh's, "" for others."""
    if isinstance(error, paramiko.BadHostKeyException):
        return "its host key is not the one in ~/.ssh/known_hosts: ask its owner before anything"
    if "not found in known_hosts" in str(error):
        return "look at its key once and for all: ssh HOST, or ssh-keyscan and its owner's word"
    has_no_key = "No authentication methods" in str(error)
    if has_no_key or isinstance(error, paramiko.AuthenticationException):
        return "it takes none of this user's SSH keys: ssh-copy-id, or an agent"
    return ""
