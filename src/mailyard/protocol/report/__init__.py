"""What comes back: bounces, delays, complaints and automatic answers (RFC 3464, 5965, 3834).

`read_report` reads any mail, standard or not, and says what it reports of whom. It never raises.
"""

from mailyard.protocol.report.read import read_report
from mailyard.protocol.report.values import Feedback, Kind, Recipient, Report, Returned, Stage

__all__ = ["Feedback", "Kind", "Recipient", "Report", "Returned", "Stage", "read_report"]
