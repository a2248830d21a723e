"""Where the OAuth credential comes from: `credentials.refresh_token`, or else `auth.json`; and that file's writing."""

import logging

from admin.auth_file import AuthFile, AuthFileError
from admin.rules import oauth
from admin.rules.oauth import Kept, State

log = logging.getLogger("relaygate")


class Sources:
    """What there is to begin a chain with. `problem` is what is wrong with the file; nothing where it is usable."""

    def __init__(self, setting: str | None, file: AuthFile) -> None:
        self._setting = setting
        self._file = file
        self._heeded = ""
        self._told = ""
        self.problem = ""

    @property
    def place(self) -> str:
        """The file's name."""
        return str(self._file.path)

    def kept(self) -> Kept | None:
        """What the file says, as far as it can be understood."""
        try:
            return self._file.read()
        except AuthFileError as error:
            self.problem = str(error)
            return None

    def chosen(self, stored: State | None) -> State | None:
        """Returns the chain to go on with; None where there is no source.

        A file is heeded once: on two machines with two logins, they would take turns otherwise. While it cannot be
        understood, what is stored counts.
        """
        kept = self.kept()
        if self._setting is not None:
            return oauth.chosen(self._setting, None, stored)
        if kept is None or kept.token is None:
            return stored if self.problem else None
        if oauth.belongs(stored, kept.token):
            self._heeded = oauth.digest(kept.token)
        elif stored is not None and self._heeded == oauth.digest(kept.token):
            return stored
        return oauth.chosen(None, kept, stored)

    def write(self, state: State, before: State | None = None) -> None:
        """Has the file say the state, if that is possible. It may hold what is of `before`'s chain."""
        try:
            self._file.write(state, before)
        except AuthFileError as error:
            self.problem = str(error)

    def tell(self) -> None:
        """Logs a line where the file's problem has become another one, and looks for it anew from now on."""
        if self.problem != self._told:
            log.warning("oauth: %s", self.problem or f"{self.place} is usable again")
        self._told, self.problem = self.problem, ""
