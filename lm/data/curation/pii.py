"""Personal data: addresses of mail and of machines, phone numbers and numbers of payment cards."""

import dataclasses
import ipaddress
import re
from typing import ClassVar, Union

from lm.data.curation.document import Document, Drop
from lm.data.curation.steps import Notes, Step, register

# A run of signs is looked at once, from its beginning: otherwise a line of a million signs would take hours.
_LOCAL = r"[A-Za-z0-9_%+-]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?<![A-Za-z0-9._%+-]){_LOCAL}+(?:\.{_LOCAL}+)*@(?:{_LABEL}\.)+[A-Za-z][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]")
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)|(?=[0-9A-Fa-f:]*::?[0-9A-Fa-f])[0-9A-Fa-f:]{4,39}(?![\w:]))")
_CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"  # +44 20 7946 0958
    r"|(?:1[ .-])?\(\d{3}\) ?\d{3}[ .-]\d{4}"  # (212) 555-0187
    r"|(?:1[ .-])?\d{3}([.-])\d{3}\1\d{4}"  # 212-555-0187
    r")(?![\w-]|\.\d)"
)
_GIVEN_OUT = ipaddress.ip_network("2000::/3")
_ISSUERS = re.compile(r"3(?:0[0-5]|[4-9])|4|5[0-9]|6|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)")


@register
@dataclasses.dataclass(frozen=True)
class PII(Step):
    """Personal data are replaced by what nobody has. An empty replacement leaves the kind alone.

    Of IP addresses only public ones are replaced. A card is 13 to 19 digits, by blanks or hyphens at most, that begin as an issuer's do and
    pass Luhn's check. A phone number has a country's +, or is written as in North America; 8 to 15 digits.
    """

    name: ClassVar[str] = "pii"

    email: str = "email@example.com"
    ip: str = "192.0.2.1"  # of the block for documentation (RFC 5737)
    phone: str = "555-0100"  # of the numbers for fiction
    card: str = "0000 0000 0000 0000"

    def apply(self, document: Document, notes: Notes) -> Union[Document, Drop]:
        text = document.text
        if "@" in text:
            text = self._replaced("email address", _EMAIL, self.email, lambda found: True, text, notes)
        if any(digit in text for digit in "0123456789"):
            text = self._replaced("public IP address", _IP, self.ip, is_public, text, notes)
            text = self._replaced("card number", _CARD, self.card, is_card, text, notes)
            text = self._replaced("phone number", _PHONE, self.phone, is_phone, text, notes)
        return document.with_text(text)

    def _replaced(self, rule: str, pattern: re.Pattern, by: str, is_one, text: str, notes: Notes) -> str:
        def replace(match: re.Match) -> str:
            if match[0] == by or not is_one(match[0]):
                return match[0]
            # What is kept for reading shows the place, and not what stood there.
            notes.changed(rule, text[max(match.start() - 30, 0) : match.start()].rpartition("\n")[2] + by)
            return by

        return pattern.sub(replace, text) if by else text


def is_public(address: str) -> bool:
    """Returns whether a text is an IP address that anybody can reach; of those of version 6, one in the block that is given out."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_global and (found.version == 4 or found in _GIVEN_OUT)


def is_card(number: str) -> bool:
    """Returns whether a number begins as one of an issuer of cards, and passes Luhn's check (ISO/IEC 7812-1)."""
    digits = re.sub(r"\D", "", number)
    doubled = [int(digit) * (1 + i % 2) for i, digit in enumerate(reversed(digits))]
    return bool(_ISSUERS.match(digits)) and sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def is_phone(number: str) -> bool:
    """Returns whether a number has as many digits as phone numbers may have (ITU-T E.164)."""
    return 8 <= len(re.sub(r"\D", "", number)) <= 15
