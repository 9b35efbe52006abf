"""The queue on Kafka (docs/KAFKA.md): the log holds the jobs, PostgreSQL says who has them.

options    where the brokers are, and what clients are told
record     a job as bytes of the log
placing    which partition a job goes to
topics     the topics of the lanes, made by `mailyard queue provision`
sender     records in, in batches, acknowledged by all replicas in step
outbox     what was enqueued in a transaction, drained into the log in order
intake     records out: this process's partitions by consumer group, and any range by offset
claiming   from records to leased jobs
held       leases: settled, prolonged, taken over
lag        how much lies in the log, and how far everything is done
engine     the port, put together; what is not plainly due goes by the engine on PostgreSQL
"""
