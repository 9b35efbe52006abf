"""One mail on its way to a peer: its commands, the replies so far, the verdicts that follow."""

from collections.abc import Mapping

from msgspec import Struct

from mailyard.protocol.smtp.client_mail import ClientMail, Fate, Stage, Verdict
from mailyard.protocol.smtp.content import has_bare_line_end
from mailyard.protocol.smtp.replies import PeerReply


class Sending(Struct, eq=False):
    """A mail under way: its envelope's replies so far."""

    mail: ClientMail
    sender_reply: PeerReply | None = None
    recipient_replies: list[PeerReply] = []
    end_written: bool = False

    @property
    def sender_taken(self) -> bool:
        return self.sender_reply is not None and taken(self.sender_reply)

    @property
    def anybody_taken(self) -> bool:
        return self.sender_taken and any(map(taken, self.recipient_replies))

    def verdicts(self, verdict: Verdict) -> list[Verdict]:
        """`verdict` for whoever was not refused already: the sender's refusal speaks for all, a
        recipient's for itself."""
        sender_reply, replies = self.sender_reply, self.recipient_replies
        if sender_reply is not None and not taken(sender_reply):
            return [refusal(sender_reply, Stage.MAIL)] * len(self.mail.recipients)
        answered = [verdict if taken(reply) else refusal(reply, Stage.RCPT) for reply in replies]
        return answered + [verdict] * (len(self.mail.recipients) - len(answered))


def problem_with(mail: ClientMail, extensions: Mapping[str, str]) -> Verdict | None:
    """Why `mail` cannot go to a peer with these `extensions`, judged before a byte is sent.

    What another peer may offer was said at EHLO; what no peer can take was found here.
    """
    text, stage = "", Stage.HELLO
    if mail.eight_bit and "8BITMIME" not in extensions:
        text = "5.6.3 the content is 8-bit and the peer does not offer 8BITMIME"
    elif mail.smtp_utf8 and "SMTPUTF8" not in extensions:
        text = "5.6.7 the mail needs SMTPUTF8 and the peer does not offer it"
    elif not mail.can_be_written:
        text, stage = "5.1.3 an address cannot be written in a command", Stage.HERE
    elif has_bare_line_end(mail.content):
        text, stage = "5.6.0 the content has a bare CR or LF", Stage.HERE
    else:
        size = extensions.get("SIZE", "")
        if size.isdigit() and 0 < int(size) < len(mail.content):
            text = f"5.3.4 the peer takes at most {size} bytes"
    return Verdict(Fate.NEVER, None, text, stage) if text else None


def mail_command(mail: ClientMail, extensions: Mapping[str, str]) -> str:
    """MAIL with the parameters that the peer offers and the mail needs."""
    parameters = f" SIZE={len(mail.content)}" if "SIZE" in extensions else ""
    if mail.eight_bit:
        parameters += " BODY=8BITMIME"
    if mail.smtp_utf8:
        parameters += " SMTPUTF8"
    return f"MAIL FROM:<{mail.reverse_path}>{parameters}\r\n"


def taken(reply: PeerReply) -> bool:
    """RFC 5321 section 4.3.2 has 250 and 251; any 2yz is a yes (section 4.2.1)."""
    return 200 <= reply.code < 300


def judged(reply: PeerReply) -> Verdict:
    """What the reply to the content says."""
    if taken(reply):
        return Verdict(Fate.ACCEPTED, reply.code, reply.text, Stage.CONTENT)
    return refusal(reply, Stage.CONTENT)


def refusal(reply: PeerReply, stage: Stage) -> Verdict:
    """What a reply that ended a mail early says. Never ACCEPTED: no content was taken."""
    fate = Fate.NEVER if reply.code >= 500 else Fate.LATER
    return Verdict(fate, reply.code, reply.text, stage)
