"""Mails with DMARC aggregate reports in them, as receivers send them."""

import gzip
from email.message import EmailMessage

DAY_S = 86_400


def aggregate(begin_s: int, report_id: str = "r1", rows: str = "") -> bytes:
    return f"""<?xml version="1.0"?><feedback><report_metadata><org_name>Peer</org_name>
    <email>dmarc@peer.test</email><report_id>{report_id}</report_id>
    <date_range><begin>{begin_s}</begin><end>{begin_s + DAY_S - 1}</end></date_range>
    </report_metadata><policy_published><domain>Ours.Example</domain><p>reject</p>
    </policy_published>{rows}</feedback>""".encode()


def row(source: str, count: int, dkim: str, spf: str, disposition: str = "none") -> str:
    return (
        f"<record><row><source_ip>{source}</source_ip><count>{count}</count><policy_evaluated>"
        f"<disposition>{disposition}</disposition><dkim>{dkim}</dkim><spf>{spf}</spf>"
        "</policy_evaluated></row><identifiers><header_from>ours.example</header_from>"
        "</identifiers></record>"
    )


def carried(data: bytes, name: str, *, packed: bool = True) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"] = "dmarc@peer.test", "reports@inbox.test"
    mail["Subject"] = "Report Domain: ours.example Submitter: peer.test Report-ID: r1"
    mail.set_content("see the file")
    kind = "gzip" if packed else "xml"
    content = gzip.compress(data) if packed else data
    mail.add_attachment(content, maintype="application", subtype=kind, filename=name)
    return mail.as_bytes().replace(b"\n", b"\r\n")
