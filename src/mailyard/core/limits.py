"""Every limit of the program, with where it comes from. Sizes in bytes, times in seconds."""

KIB = 1024
MIB = 1024 * KIB

# SMTP, RFC 5321 section 4.5.3.1 gives minimums; these are what this server accepts.
SMTP_COMMAND_LINE_BYTES = (
    2048  # 512 in RFC 5321 4.5.3.1.4, raised by SMTPUTF8, AUTH and ESMTP parameters
)
SMTP_REPLY_LINE_BYTES = 4096  # 512 in 4.5.3.1.5; real replies are longer
SMTP_REPLY_BYTES = 64 * KIB  # a whole multi-line reply that the client is ready to read
SMTP_LOCAL_PART_BYTES = 64  # 4.5.3.1.1
SMTP_DOMAIN_BYTES = 255  # 4.5.3.1.2
SMTP_PATH_BYTES = 320  # local part, @, domain
SMTP_RECIPIENTS_PER_MESSAGE = 1000  # 4.5.3.1.8 wants at least 100
SMTP_MESSAGE_BYTES = 25 * MIB  # what large receivers accept
SMTP_TEXT_LINE_BYTES = 1 * MIB  # 1,000 in 4.5.3.1.6; received liberally, bounded all the same
SMTP_ERRORS_PER_SESSION = 20
SMTP_LOGINS_PER_SESSION = 3  # that fail
SMTP_SESSIONS_PER_KEY = 200  # that submit mail, of one process
SMTP_AUTH_LINE_BYTES = 12_288  # RFC 4954 section 4
SMTP_COMMANDS_PER_SESSION = 1_000_000
SMTP_CONNECTIONS_PER_ADDRESS = 100
SMTP_CONNECTIONS = 2_000
SMTP_COMMAND_TIMEOUT_S = 300.0  # 4.5.3.2.7: at least five minutes
SMTP_DATA_TIMEOUT_S = 180.0  # 4.5.3.2.5: three minutes for each block
SMTP_SESSION_TIMEOUT_S = 3600.0
SMTP_MESSAGE_TIMEOUT_S = 900.0  # the whole of one DATA phase, so that a drip cannot hold a place

# Accepting mail: what one process may hold between the last byte of a message and its 250.
ACCEPT_WAITING_BYTES = 64 * MIB
ACCEPT_WAITING_MESSAGES = 10_000
ACCEPT_GROUP_BYTES = 8 * MIB  # one transaction
ACCEPT_GROUP_MESSAGES = 500
ACCEPT_PATIENCE_S = 60.0  # RFC 5321 4.5.3.2.6: a client waits ten minutes for the answer
ROUTE_PATIENCE_S = 10.0  # RFC 5321 4.5.3.2.3: a client waits five minutes for RCPT's answer
INGEST_CHUNK_BYTES = 16 * MIB  # raw mail in a worker's memory at once
INGEST_CHUNK_MESSAGES = 1_000

# Blobs: what is too large for a row.
BLOB_ABOVE_BYTES = 256 * KIB  # raw mail above this goes to the blob store, where there is one
BLOB_ABOVE_BYTES_MIN = 16 * KIB  # below a request costs more than the row
BLOB_READ_S = 15.0
BLOB_WRITE_S = 20.0  # and as long as the bytes take at the least rate below
BLOB_BYTES_PER_S = 1 * MIB
BLOB_PAUSE_S = 1.0  # a store that was away is left alone so long
BLOB_ORPHAN_S = 6 * 3_600.0  # what no row names is deleted after this; a commit takes a minute
BLOB_READS_AT_ONCE = 16  # of one batch
BLOB_LINK_S = 900.0  # a presigned download
BLOB_LINK_MAX_S = 7 * 86_400.0  # S3's own limit

# Inboxes and their mail.
INBOXES_PER_BATCH = 1_000
INBOXES_PER_READ = 500
READ_BYTES = 32 * MIB  # raw mail behind one batch read
INBOX_TTL_S = 10 * 365 * 86_400.0
INBOX_MESSAGES_MAX = 10_000_000  # what a quota may say
INBOX_BYTES_MAX = 1024 * 1024 * MIB
INBOX_NAME_CHARACTERS = 200
INBOX_LABELS = 50
INBOX_LABEL_CHARACTERS = 100
SEARCH_CHARACTERS = 200
SEARCH_QUERY_CHARACTERS = 1_000
SEARCH_TERMS = 50
SEARCH_RANKED = 10_000  # the newest matches, of which the best are shown
SEARCH_TEXT_CHARACTERS = 100_000  # of one mail, its text files included, that are indexed
SEARCH_FILE_BYTES = 256 * KIB  # of one text file
SEARCH_RAW_BYTES = 4 * MIB  # of larger mail only the beginning is read for the index

# Composing and reading mail.
HEADER_LINE_BYTES = 998  # RFC 5322 section 2.1.1
HEADER_FOLD_BYTES = 78  # RFC 5322 section 2.1.1
HEADERS_PER_EMAIL = 64
HEADER_VALUE_BYTES = 8 * KIB
SUBJECT_CHARACTERS = 998
BODY_BYTES = 2 * MIB
ATTACHMENTS_PER_EMAIL = 50
EMAIL_BYTES = 25 * MIB
RECIPIENTS_PER_EMAIL = 100
EMAILS_PER_BATCH = 1_000

# The parser of received mail: its work is bounded by these, whatever the bytes say.
MIME_DEPTH = 32
MIME_PARTS = 1_000
MIME_HEADERS = 2_000
MIME_HEADER_BYTES = 256 * KIB
MIME_TEXT_CHARACTERS = 256 * KIB  # of a mail, for search, snippets and analysis
MIME_TEXT_HTML_CHARACTERS = 512 * KIB  # of its HTML, where it has no text

# HTTP.
API_BODY_BYTES = 40 * MIB  # a full email with attachments in base64
API_JSON_DEPTH = 32
SUPPRESSION_FILE_BYTES = 512 * MIB
HOOK_BODY_BYTES = 800 * KIB  # SendGrid sends up to 768 KB of events at once
API_PAGE_ITEMS = 100
API_PAGE_ITEMS_MAX = 500
IDEMPOTENCY_KEY_CHARACTERS = 256
IDEMPOTENCY_KEEP_S = 24 * 3600.0
WAIT_TIMEOUT_S = 120.0
# 25 to 32 KB each (bench/live.py): 320 MB of the 600 that an API process may have (api_memory), and
# half of the 20,000 files that systems commonly let a process open.
LIVE_CONNECTIONS = 10_000
LIVE_HEARTBEAT_S = 30.0
LIVE_BUFFER_BYTES = 256 * KIB  # what one listener may be behind
LIVE_WRITE_S = 30.0  # for which a listener may take nothing
LIVE_CHECK_S = 60.0  # between looks whether listeners' keys and sessions still stand
LIVE_SPARE_FILES = 1_000  # of a process, for what is no live connection
SOCKET_MESSAGE_BYTES = 16 * KIB  # that a WebSocket's client may send
SOCKET_MESSAGES_A_MINUTE = 60
SOCKET_FRAMES_A_MINUTE = 600  # pings and what else is no message, too
SOCKET_BUFFER_BYTES = 64 * KIB  # on their way to a WebSocket; more waits as for any listener

# Templates (minijinja): plain JSON values in, bounded work, bounded output.
TEMPLATE_SOURCE_BYTES = 1 * MIB
TEMPLATE_FUEL = 1_000_000
TEMPLATE_OUTPUT_BYTES = 4 * MIB
TEMPLATE_PROOF_MEMORY_BYTES = 512 * MIB
TEMPLATE_PROOF_TIMEOUT_S = 5.0

# Handing off. Together at most 100 recipients of a worker process are ever named and unrecorded.
HANDOFF_WINDOW_SEND = 30
HANDOFF_WINDOW_BULK = 70
CAMPAIGN_CHUNK_RECIPIENTS = 1_000

# Queue.
JOB_PAYLOAD_BYTES = 1 * MIB
JOB_CRASHES_BEFORE_BURIED = 3
JOB_SECOND_CHANCES_S = (3.0, 60.0, 600.0, 3600.0)  # after a burial for crashes, at most doubled
LEASE_S = 20.0  # DESIGN: jobs of a dead worker run again within 30 s
HEARTBEAT_S = 5.0

# CSV import.
CSV_LINE_BYTES = 1 * MIB
CSV_COLUMNS = 256
IMPORT_BYTES = 2 * 1024 * MIB
