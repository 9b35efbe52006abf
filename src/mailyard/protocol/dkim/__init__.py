"""DKIM (RFC 6376, 8301, 8463): keys and their records, signing, verification.

`tags`, `canonical`, `mail` and `record` stand alone, for what is built like DKIM (ARC, RFC 8617).
"""

from mailyard.protocol.dkim.key import (
    BadKey,
    PrivateKey,
    PublicKey,
    generate_ed25519,
    generate_rsa,
    load_private_key,
)
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.dkim.record import (
    BadKeyRecord,
    KeyRecord,
    parse_key_record,
    record_name,
    record_text,
    txt_strings,
)
from mailyard.protocol.dkim.sign import Signer, sign_all
from mailyard.protocol.dkim.signature import Signature, Status, signatures
from mailyard.protocol.dkim.verify import Result, verify

__all__ = [
    "BadKey", "BadKeyRecord", "KeyRecord", "Mail", "PrivateKey", "PublicKey", "Result", "Signature",
    "Signer", "Status", "generate_ed25519", "generate_rsa", "load_private_key", "parse_key_record",
    "record_name", "record_text", "sign_all", "signatures", "txt_strings", "verify",
]  # fmt: skip
